"""Find what the indices of a palette picture stand for: themselves, unless a program renumbered its palette."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import Colour

_BLACK, _WHITE = (0, 0, 0), 255
_OF_MASKS = {0, 1, _WHITE}


def ids_of_palette(picture: Image.Image, where: str, colours: Mapping[Colour, int]) -> NDArray[np.uint8]:
    """Return the ids of a palette picture, (height, width): its indices, or what a renumbered palette shows instead.

    A palette of nothing but colours of classes gives the ids of these. Without such colours, one of greys that run
    against its indices, as white before black, gives the greys if they are those of a mask. Entries that repeat an
    earlier one are padding and tell nothing.

    Args:
        picture: of the mode P or PA.
        where: what error messages call it.
        colours: the id of each colour, if the ids have colours.

    Raises:
        DatasetError: if greys run against their indices and are no mask's.
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
