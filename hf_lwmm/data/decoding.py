"""Decode pictures to RGB, and label files to the ids that they store rather than the colours that a viewer shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.runs import Ids, Runs, run_ends
from hf_lwmm.errors import DatasetError
from hf_lwmm.files.kinds import HEAD, foreign_kind

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # of the pictures that folders are searched for
Colour = tuple[int, int, int]

_PNG = b"\x89PNG\r\n\x1a\n"


def decode(stored: bytes | Path, where: str) -> Image.Image:
    """Return a picture in the mode in which it is stored, decoded to the end.

    Args:
        stored: the content of the file, or its path.
        where: what error messages call it.

    Raises:
        DatasetError: if it cannot be decoded.
    """
    try:
        picture = Image.open(io.BytesIO(stored) if isinstance(stored, bytes) else stored)
        picture.load()
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        mistake = foreign_kind(_head(stored))
        why = f"it {mistake}" if mistake else _without_address(error)
        raise DatasetError(f"{where}: cannot be decoded: {why}") from None
    return picture


def decode_rgb(stored: bytes | Path, where: str) -> Image.Image:
    """Return a picture as 8-bit RGB: the upper 8 bits of 16-bit ones, and without transparency.

    Raises:
        DatasetError: if it cannot be decoded, or holds values that are neither 8-bit nor 16-bit integers.
    """
    picture = decode(stored, where)
    if picture.mode == "F":
        raise DatasetError(f"{where}: has fractional values; store pictures as integers of 8 or 16 bits.")
    if picture.mode.startswith("I"):  # Pillow's own conversion would clip them to 255
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise DatasetError(f"{where}: has values from {values.min()} to {values.max()}, beyond 16 bits.")
        is_deep = values.dtype.itemsize == 2 or values.max() > 255
        picture = Image.fromarray((values >> 8 if is_deep else values).astype(np.uint8))
    return picture.convert("RGB")


def label_ids(stored: bytes | Path, where: str, colours: Sequence[Colour] = ()) -> Ids:
    """Return the ids of a label file, (height, width) integers; a palette picture gives its indices.

    Args:
        stored: the content of the file, or its path.
        where: what error messages call it.
        colours: the colour of each id, for files that show ids as 8-bit colours. Of colours with 16 bits a channel, as
            SYNTHIA has them, the first channel holds the ids.

    Raises:
        DatasetError: if it cannot be decoded, is lossy, or its colours do not stand for ids.
    """
    picture = decode(stored, where)
    if picture.format == "JPEG":
        raise DatasetError(f"{where}: is a JPEG, which does not keep ids exactly. Labels are PNG files.")
    values: NDArray[Any] = np.asarray(picture)
    if picture.mode in ("RGB", "RGBA"):
        content = stored if isinstance(stored, bytes) else stored.read_bytes()
        if _has_deep_colours(content):
            values = values[..., 0] * np.uint16(256) + _low_bytes(content)[..., 0]
    if values.ndim == 3:
        values = _ids_of_colours(values, where, colours)
    if values.dtype.kind not in "bui":
        raise DatasetError(f"{where}: has fractional values; labels are whole numbers.")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def segment_runs(stored: bytes | Path, where: str) -> Runs:
    """Return the ids of a panoptic label: red + 256 green + 65536 blue, or the values of a grey picture.

    Raises:
        DatasetError: if it cannot be decoded.
    """
    picture = decode(stored, where)
    if len(picture.getbands()) > 1:
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    channels: NDArray[Any] = np.asarray(picture)
    if channels.ndim == 2:
        return Runs.of(channels.astype(np.int32))
    ends = run_ends(channels)  # of colours: far fewer pixels are left to make ids of
    colours = np.zeros((ends.size, 4), np.uint8)
    colours[:, :3] = channels.reshape(-1, 3).take(ends, axis=0)
    return Runs((channels.shape[0], channels.shape[1]), ends, colours.view("<u4")[:, 0].astype(np.int32))


def panoptic_map(stored: bytes | Path, listed: Sequence[Mapping[str, Any]], where: str) -> PanopticMap:
    """Return the segments of a panoptic label, whose ids are those of `segment_runs`.

    Args:
        stored: the content of the file, or its path.
        listed: the entries of its `segments_info`, each with `id`, `category_id` and perhaps `iscrowd`.
        where: what error messages call it.

    Raises:
        DatasetError: if it cannot be decoded, or its list has no classes, or has a segment that it does not show.
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


def _head(stored: bytes | Path) -> bytes:
    """The first bytes of a picture, as many as tell a kind of file; a blank if it cannot be read."""
    if isinstance(stored, bytes):
        return stored[:HEAD]
    try:
        with stored.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b" "


def _without_address(error: Exception) -> str:
    """The text of Pillow's error, without the address of a buffer, which is of no use to readers."""
    return "it is no picture of a known kind" if isinstance(error, UnidentifiedImageError) else str(error)


def _has_deep_colours(content: bytes) -> bool:
    """True for a PNG of colours with 16 bits a channel; Pillow keeps the upper 8, in which ids leave zeros."""
    depth, colour_type = content[24:25], content[25:26]
    return content.startswith(_PNG) and depth == b"\x10" and colour_type in (b"\x02", b"\x06")


def _low_bytes(content: bytes) -> NDArray[np.uint8]:
    """The bytes that Pillow leaves out of 16-bit channels, which it gives if the other byte order is named."""
    with Image.open(io.BytesIO(content)) as picture:
        tiles: Any = [(codec, extents, offset, f"{picture.mode};16L") for codec, extents, offset, _ in picture.tile]
        picture.tile = tiles
        return np.asarray(picture)


def _ids_of_colours(values: NDArray[Any], where: str, colours: Sequence[Colour]) -> NDArray[Any]:
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
