"""Find what the indices of a palette picture stand for: themselves, unless a program renumbered its palette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import FROM_ZERO, Colour, colours_of_ids, indexed_schemes

_BLACK, _WHITE = (0, 0, 0), 255
_OF_MASKS = {0, 1, _WHITE}


def ids_of_palette(picture: Image.Image, where: str, colours: Mapping[Colour, int] | None) -> NDArray[np.uint8]:
    """Return the ids of a palette picture, (height, width): its indices, or what a renumbered palette shows instead.

    A palette of nothing but colours of classes gives the ids of these. Without such colours, one of greys that run
    against its indices, as white before black, gives the greys if they are those of a mask. Entries that repeat an
    earlier one are padding and tell nothing. Where nothing says what the ids are, a palette of nothing but the colours
    of a data set that has palette files, at other indices than there, could mean either.

    Args:
        picture: of the mode P or PA.
        where: what error messages call it.
        colours: the id of each colour, none if the ids have no colours, and None if nothing says what the ids are.

    Raises:
        DatasetError: if greys run against their indices and are no mask's, or a known palette seems to be renumbered.
    """
    indices: NDArray[np.uint8] = np.asarray(picture)
    indices = indices if indices.ndim == 2 else indices[..., 0]
    flat = picture.getpalette("RGB") or []
    palette = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]
    used = [index for index, count in enumerate(picture.histogram()[:256]) if count]
    if not used or used[-1] >= len(palette) or any(palette.index(palette[index]) < index for index in used):
        return indices
    shown = {index: palette[index] for index in used}
    table = np.arange(256, dtype=np.uint8)
    if colours:
        if {*palette} <= {*colours, _BLACK} and {*shown.values()} <= colours.keys():
            table[used] = [colours[colour] for colour in shown.values()]
        return table[indices]
    if colours is None:
        _check_known_palettes(palette, shown, where)
    if any(len({*colour}) > 1 for colour in shown.values()):
        return indices
    greys = [colour[0] for colour in shown.values()]
    is_against = greys != sorted(greys) or (used[0] > 0 and greys[0] == 0) or (used[0] == 0 and greys[0] == _WHITE)
    if not is_against or greys == used:
        return indices
    if not {*greys} <= _OF_MASKS:
        raise DatasetError(
            f"{where}: has a palette of greys that run against its indices ({greys[0]} is {used[0]}, ...), so that "
            "either could be the ids. Save labels as grey PNG files of ids."
        )
    table[used] = greys
    return table[indices]


def _check_known_palettes(palette: Sequence[Colour], shown: Mapping[int, Colour], where: str) -> None:
    """Refuse a palette of nothing but the colours of a data set's palette files if they stand at other indices."""
    for scheme in indexed_schemes():
        known = colours_of_ids(scheme) or {}
        if {*palette} <= {*known, _BLACK} and {*shown.values()} - {_BLACK}:
            for index, colour in shown.items():
                if known.get(colour) != index:
                    raise DatasetError(
                        f"{where}: its palette has the colours of {scheme} in another order ({list(colour)} is "
                        f"{index}, not {known.get(colour)}), so that either could be the ids. --ids {scheme} reads the "
                        f"colours, --ids {FROM_ZERO} the indices."
                    )
