"""Find what the indices of a palette picture stand for: themselves, unless a program renumbered its palette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import FROM_ZERO, Colour, colours_of_ids, indexed_schemes, label_sets, meaning

_BLACK, _WHITE = (0, 0, 0), 255
_CITY = "cityscapes"  # whose palette files come in several numberings
_OF_MASKS = {0, 1, _WHITE}


def ids_of_palette(picture: Image.Image, where: str, colours: Mapping[Colour, int] | None) -> NDArray[np.uint8]:
    """Return the ids of a palette picture, (height, width): its indices, or what a renumbered palette shows instead.

    If the used entries are colours of classes, they give the ids of these; greys do so if the palette has no other
    colours. Without such colours, one of greys that run against its indices, as white before black, gives the greys if
    they are those of a mask. Entries that repeat an earlier one are padding and tell nothing. Where nothing says what
    the ids are, a palette of nothing but the colours of a data set that has palette files, at other indices than there,
    could mean either.

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
        whole = {*palette} <= {*colours, _BLACK} or any(len({*colour}) > 1 for colour in shown.values())
        if whole and {*shown.values()} <= colours.keys():
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
    """Refuse a palette that shows the colours of a known set at other indices than files of this set have them.

    It shows them if it has nothing else, or if at least two are used and nothing else is; black may be anything.
    """
    used = {index: colour for index, colour in shown.items() if colour != _BLACK}
    for scheme in (*indexed_schemes(), _CITY):
        known = colours_of_ids(scheme) or {}
        meant = {*palette} <= {*known, _BLACK} or len(used) > 1
        if not used or not meant or not {*used.values()} <= known.keys():
            continue
        checked = used if scheme == _CITY else shown  # black is a class of Pascal VOC's
        wrong = next(((index, colour) for index, colour in checked.items() if known.get(colour) != index), None)
        if wrong and not (scheme == _CITY and _in_order(used)):
            raise DatasetError(
                f"{where}: its palette has the colours of {scheme} in another order ({list(wrong[1])} is {wrong[0]}, "
                f"not {known.get(wrong[1])}), so that either could be the ids. --ids {scheme} reads the colours, --ids "
                f"{FROM_ZERO} the indices."
            )


def _in_order(used: Mapping[int, Colour]) -> bool:
    """True if colours of Cityscapes stand in the order of its classes, or at those of a known set, such as CamVid's."""
    labels = label_sets()
    city = labels["cityscapes19"]
    names = {colour: meaning(name) for colour, name in zip(city.colours, city.classes, strict=True)}
    classes = {index: names[colour] for index, colour in sorted(used.items()) if colour in names}
    rows = [[*names.values()].index(name) for name in classes.values()]
    if rows == sorted(rows):
        return True
    for other in labels.values():
        found = {index: meaning(other.classes[index]) for index in classes if index < len(other.classes)}
        same = [index for index, name in found.items() if name == classes[index]]
        strange = [index for index, name in found.items() if name not in names.values()]
        if len(same) + len(strange) == len(classes) and len(same) > len(strange):
            return True
    return False
