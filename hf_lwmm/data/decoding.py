"""Pictures and label files as they are stored: ids, never the colours a viewer would show for them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kornia_rs.io
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hf_lwmm.data.runs import Ids, Runs, run_ends
from hf_lwmm.errors import DatasetError
from hf_lwmm.metrics.panoptic import PanopticMap

Colour = tuple[int, int, int]
VOID = 255

_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = {b"\x08\x00": "mono", b"\x08\x02": "rgb"}  # by depth and colour type of a PNG's header


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
    values: NDArray[Any] | None = _plain_png(stored)
    if values is None:
        picture = decode(stored, where)
        if picture.format == "JPEG":
            raise DatasetError(f"{where}: is a JPEG, which does not keep ids exactly. Labels are PNG files.")
        values = np.asarray(picture)
        if picture.mode in ("RGB", "RGBA"):
            content = stored if isinstance(stored, bytes) else stored.read_bytes()
            if _is_deep_colour(content):
                values = values[..., 0] * np.uint16(256) + _low_bytes(content)[..., 0]
    if values.ndim == 3:
        values = _of_colours(values, where, colours)
    if values.dtype.kind not in "bui":
        raise DatasetError(f"{where}: has fractional values; labels are whole numbers.")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def segment_runs(stored: bytes | Path, where: str) -> Runs:
    """The ids of a panoptic label, red + 256 green + 65536 blue, or the values of a grey one.

    Raises:
        DatasetError: if it cannot be decoded.
    """
    channels: NDArray[Any] | None = _plain_png(stored)
    if channels is None:
        picture = decode(stored, where)
        if len(picture.getbands()) > 1:
            picture = picture.convert("L" if picture.mode == "LA" else "RGB")
        channels = np.asarray(picture)
    if channels.ndim == 2:
        return Runs.of(channels.astype(np.int32))
    ends = run_ends(channels)  # of colours: far fewer pixels are left to make ids of
    colours = np.zeros((ends.size, 4), np.uint8)
    colours[:, :3] = channels.reshape(-1, 3).take(ends, axis=0)
    return Runs((channels.shape[0], channels.shape[1]), ends, colours.view("<u4")[:, 0].astype(np.int32))


def segments_of(stored: bytes | Path, listed: Sequence[Mapping[str, Any]], where: str) -> PanopticMap:
    """The segments of a panoptic label: ids red + 256 green + 65536 blue, their classes from `segments_info`.

    Raises:
        DatasetError: if it cannot be decoded, or its list has no classes, or a segment that it does not show.
    """
    runs = segment_runs(stored, where)
    try:
        classes = {int(segment["id"]): int(segment["category_id"]) for segment in listed}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: its segments_info needs id and category_id in every record ({error}).") from None
    if lacking := classes.keys() - set(runs.ids.tolist()):
        raise DatasetError(f"{where}: segments_info lists the segment {min(lacking)}, which the label does not have.")
    crowds = frozenset(int(segment["id"]) for segment in listed if segment.get("iscrowd"))
    return PanopticMap(runs, classes, crowds)


def classes_of(segments: PanopticMap) -> NDArray[np.int32]:
    """The class of each pixel of a panoptic map, `VOID` where no listed segment is: (height, width)."""
    ids, inverse = np.unique(segments.runs.ids, return_inverse=True)
    table = np.array([segments.classes.get(number, VOID) for number in ids.tolist()], np.int32)
    return segments.runs.paint(table[inverse])


def _plain_png(stored: bytes | Path) -> NDArray[np.uint8] | None:
    """A PNG of grey, (height, width), or of colours, (height, width, 3), several times as fast as Pillow reads it.

    None for palettes, other depths and kinds of files, for broken files and for those so large that Pillow warns:
    these are Pillow's, which knows more and says more.
    """
    try:
        content = stored if isinstance(stored, bytes) else stored.read_bytes()
    except OSError:
        return None
    mode = _PLAIN.get(content[24:26])
    if mode is None or not content.startswith(_PNG):
        return None
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    if width * height > (Image.MAX_IMAGE_PIXELS or sys.maxsize):
        return None
    try:
        channels: NDArray[np.uint8] = kornia_rs.io.decode_image_png_u8(content, (height, width), mode)
    except Exception:  # it raises no class of its own
        return None
    return channels[..., 0] if mode == "mono" else channels


def _without_address(error: Exception) -> str:
    """Pillow shows the address of a buffer, which is of no use to anybody."""
    return "it is no picture of a known kind" if isinstance(error, UnidentifiedImageError) else str(error)


def _is_deep_colour(content: bytes) -> bool:
    """Whether it is a PNG of colours with 16 bits a channel; of these Pillow keeps the upper 8, which ids leave 0."""
    depth, colour_type = content[24:25], content[25:26]
    return content.startswith(_PNG) and depth == b"\x10" and colour_type in (b"\x02", b"\x06")


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
