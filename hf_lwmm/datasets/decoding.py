"""Pictures and label files as they are stored: ids, never the colours a viewer would show for them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hf_lwmm.errors import DatasetError
from hf_lwmm.metrics.panoptic import PanopticMap, ids_in, run_ends

Ids = NDArray[np.integer[Any]]
Colour = tuple[int, int, int]
VOID = 255


def decode(stored: bytes | Path, where: str) -> Image.Image:
    """A picture, decoded to the end.

    Raises:
        DatasetError: if it cannot be.
    """
    try:
        picture = Image.open(io.BytesIO(stored) if isinstance(stored, bytes) else stored)
        picture.load()
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where}: cannot be decoded: {_without_address(error)}") from None
    return picture


def label_ids(stored: bytes | Path, where: str, colours: Sequence[Colour] = ()) -> Ids:
    """The ids of a label file, (height, width): of a palette picture the indices, not the colours.

    A picture of 8-bit colours is read by `colours`, the colour of each id. Of one with 16 bits a channel, as SYNTHIA
    has them, the first channel holds the classes.

    Raises:
        DatasetError: if it cannot be decoded, is lossy, or its colours do not stand for ids.
    """
    picture = decode(stored, where)
    if picture.format == "JPEG":
        raise DatasetError(f"{where}: is a JPEG, which does not keep ids exactly. Labels are PNG files.")
    values: NDArray[Any] = np.asarray(picture)
    if picture.mode in ("RGB", "RGBA"):
        content = stored if isinstance(stored, bytes) else stored.read_bytes()
        if _is_deep_colour(content):
            values = values[..., 0] * np.uint16(256) + _low_bytes(content)[..., 0]
    if values.ndim == 3:
        values = _of_colours(values, where, colours)
    if values.dtype.kind not in "bui":
        raise DatasetError(f"{where}: has fractional values; labels are whole numbers.")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def segments_of(stored: bytes | Path, listed: Sequence[Mapping[str, Any]], where: str) -> PanopticMap:
    """The segments of a panoptic label: ids red + 256 green + 65536 blue, their classes from `segments_info`.

    Raises:
        DatasetError: if it cannot be decoded, or its list has no classes, or a segment that it does not show.
    """
    ids = _segment_ids(decode(stored, where))
    try:
        classes = {int(segment["id"]): int(segment["category_id"]) for segment in listed}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: its segments_info needs id and category_id in every record ({error}).") from None
    if lacking := classes.keys() - set(ids_in(ids).tolist()):
        raise DatasetError(f"{where}: segments_info lists the segment {min(lacking)}, which the label does not have.")
    crowds = frozenset(int(segment["id"]) for segment in listed if segment.get("iscrowd"))
    return PanopticMap(ids, classes, crowds)


def classes_of(segments: PanopticMap) -> NDArray[np.int32]:
    """The class of each pixel of a panoptic map, `VOID` where no listed segment is: (height, width)."""
    ends = run_ends(segments.ids)
    ids, inverse = np.unique(segments.ids.reshape(-1)[ends], return_inverse=True)
    table = np.array([segments.classes.get(number, VOID) for number in ids.tolist()], np.int32)
    return np.repeat(table[inverse], np.diff(ends, prepend=-1)).reshape(segments.ids.shape)


def _segment_ids(picture: Image.Image) -> NDArray[np.int32]:
    if picture.mode not in ("RGB", "RGBA"):
        return np.asarray(picture).astype(np.int32)
    # Four bytes a pixel are one number, without arithmetic on the channels.
    words = np.frombuffer(picture.convert("RGB").tobytes("raw", "RGBX"), "<u4").reshape(picture.height, picture.width)
    return (words & 0xFFFFFF).astype(np.int32)


def _without_address(error: Exception) -> str:
    """Pillow shows the address of a buffer, which is of no use to anybody."""
    return "it is no picture of a known kind" if isinstance(error, UnidentifiedImageError) else str(error)


def _is_deep_colour(content: bytes) -> bool:
    """Whether it is a PNG of colours with 16 bits a channel; of these Pillow keeps the upper 8, which ids leave 0."""
    depth, colour_type = content[24:25], content[25:26]
    return content.startswith(b"\x89PNG") and depth == b"\x10" and colour_type in (b"\x02", b"\x06")


def _low_bytes(content: bytes) -> NDArray[np.uint8]:
    """Of a picture with 16 bits a channel the bytes that Pillow leaves out, by telling it the other byte order."""
    with Image.open(io.BytesIO(content)) as picture:
        tiles: Any = [(codec, extents, offset, f"{picture.mode};16L") for codec, extents, offset, _ in picture.tile]
        picture.tile = tiles
        return np.asarray(picture)


def _of_colours(values: NDArray[Any], where: str, colours: Sequence[Colour]) -> NDArray[Any]:
    if values.shape[2] == 2:  # grey with transparency
        return values[..., 0]
    if (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all():
        return values[..., 0]
    if not colours:
        raise DatasetError(
            f"{where}: is a picture of colours, not of ids. --ids names the set whose colours they are (camvid32)."
        )
    place = np.array([65536, 256, 1])
    codes = values[..., :3].astype(np.int32) @ place
    known = np.array(colours) @ place
    order = np.argsort(known)
    found: NDArray[Any] = order[np.searchsorted(known[order], codes).clip(max=len(known) - 1)]
    if (wrong := known[found] != codes).any():
        y, x = (int(part[0]) for part in np.nonzero(wrong))
        raise DatasetError(f"{where}: has the colour {values[y, x, :3].tolist()} at ({x}, {y}), which is no class's.")
    return found
