"""Decode pictures to RGB, and label files to the ids that they store rather than the colours that a viewer shows."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.palettes import ids_of_palette
from hf_lwmm.data.png import plain_values
from hf_lwmm.data.runs import Ids, Runs, run_ends
from hf_lwmm.errors import DatasetError
from hf_lwmm.files.kinds import HEAD, foreign_kind
from hf_lwmm.labels import Colour, coloured_schemes

# Of the pictures that folders are searched for; those of JPEG never hold labels.
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
SUFFIXES = (
    ".png",
    *JPEG_SUFFIXES,
    *(".webp", ".avif", ".jp2", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".gif"),
)
# Of pictures that are not read: those of phones, cameras and other programs.
UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".j2k", ".jpx", ".apng", ".exr", ".hdr", ".psd"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw", ".pcx", ".sgi", ".dds"),
)

_PNG = b"\x89PNG\r\n\x1a\n"
# Of TIFF and WebP, the files that are compressed so. GIFs renumber palettes.
_LOSSLESS = ("PNG", "BMP", "DIB", "PPM", "TIFF", "WEBP")
_LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
_ID_MODES = ("1", "L", "LA", "P", "PA", "I", "F", "RGB", "RGBA", "RGBX")  # and I;16 in either byte order
_DEFLATE = 1032  # bytes that one byte can stand for at most
_EXACT = 1 << 24  # below it a float of 32 bits may be any whole number
_ORIENTATION = 0x0112
# The turn that shows a picture upright, by the value of this tag of EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(stored: bytes | Path, where: str) -> Image.Image:
    """Return a picture in the mode in which it is stored, decoded to the end; of several in a file, the first.

    Args:
        stored: the content of the file, or its path.
        where: what error messages call it.

    Raises:
        DatasetError: if it cannot be decoded.
    """
    with _named(stored, where), _opened(stored) as picture:
        picture.load()
    return picture


def _opened(stored: bytes | Path) -> Image.Image:
    picture = Image.open(io.BytesIO(stored) if isinstance(stored, bytes) else stored)
    _check_claim(picture, len(stored) if isinstance(stored, bytes) else stored.stat().st_size)
    return picture


@contextlib.contextmanager
def _named(stored: bytes | Path, where: str) -> Iterator[None]:
    """Say of which file it is that decoding failed, and why. Raises DatasetError."""
    if isinstance(stored, Path) and os.path.exists(stored) and not os.path.isfile(stored):  # noqa: PTH110, PTH113
        raise DatasetError(f"{where}: is no file, but a folder, a pipe or the like.")
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(f"{where}: there is no such file.") from None
    except Exception as error:  # a damaged file fails wherever Pillow's reader of its format first meets it
        mistake = foreign_kind(_head(stored))
        why = f"it {mistake}" if mistake else _without_address(error)
        raise DatasetError(f"{where}: cannot be decoded: {why}") from None


def _check_claim(picture: Image.Image, size: int) -> None:
    """Refuse a picture of more pixels than Pillow holds safe, or than a PNG file of `size` bytes has room for."""
    pixels, most = picture.width * picture.height, Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise ValueError(f"it has {pixels:,} pixels, more than PIL.Image.MAX_IMAGE_PIXELS, which is {most:,}")
    if picture.format == "PNG" and pixels > 8 * _DEFLATE * size:
        raise ValueError(f"it claims {pixels:,} pixels, for which its {size:,} bytes have no room")


def decode_rgb(stored: bytes | Path, where: str) -> Image.Image:
    """Return a picture as 8-bit RGB: the upper 8 bits of 16-bit ones, and without transparency.

    It is turned as the camera noted in its EXIF, as viewers and `datasets` turn it.

    Raises:
        DatasetError: if it cannot be decoded, or holds values that are neither 8-bit nor 16-bit integers.
    """
    picture = decode(stored, where)
    turn = _turn(picture)
    if picture.mode == "F":
        raise DatasetError(f"{where}: holds floats; store pictures as integers of 8 or 16 bits.")
    if picture.mode.startswith("I"):  # Pillow's own conversion would clip them to 255
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise DatasetError(f"{where}: has values from {values.min()} to {values.max()}, beyond 16 bits.")
        is_deep = values.dtype.itemsize == 2 or values.max() > 255
        picture = Image.fromarray((values >> 8 if is_deep else values).astype(np.uint8))
    try:
        rgb = picture.convert("RGB")
    except ValueError as error:
        raise DatasetError(f"{where}: cannot be shown as RGB: {error}.") from None
    return rgb if turn is None else rgb.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing about the picture, which viewers then show as it is
        return None


def decode_exact(stored: bytes | Path, where: str) -> tuple[Image.Image, NDArray[Any]]:
    """Return the picture of a label, and its values as they are stored, never turned.

    The values are (height, width) or (height, width, channels), of the type that the picture's mode has in NumPy. Only
    where it is read by Pillow is the picture itself decoded, too.

    Raises:
        DatasetError: if it cannot be decoded, has a format that does not keep every pixel, or holds several pictures.
    """
    with _named(stored, where), _opened(stored) as picture:
        values = plain_values(picture, content_of(stored)) if picture.format == "PNG" else None
        if values is None:
            picture.load()
            values = np.asarray(picture)
        frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise DatasetError(f"{where}: holds {frames} pictures. Store each label as a file of its own.")
    kind = picture.format or "picture of its own kind"
    if kind == "TIFF" and picture.info.get("compression") in _LOSSY_IN_TIFF:
        kind = f"TIFF compressed as {picture.info['compression']}"
    elif kind == "WEBP" and not _is_lossless_webp(content_of(stored)):
        kind = "lossy WEBP"
    if kind not in _LOSSLESS:
        raise DatasetError(f"{where}: is a {kind}, which does not keep ids exactly. Labels are PNG files.")
    return picture, values


def content_of(stored: bytes | Path) -> bytes:
    """Return the content of a file that is given by it, or by its path."""
    return stored if isinstance(stored, bytes) else stored.read_bytes()


def _is_lossless_webp(content: bytes) -> bool:
    """True if no frame of a WebP file is stored as VP8, whose pixels are close to the picture's and no more."""
    place, size = 12, len(content)
    while place + 8 <= size:
        kind, length = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if kind == b"VP8 ":
            return False
        place += 24 if kind == b"ANMF" else 8 + length + length % 2  # a frame holds chunks of its own
    return True


def label_ids(stored: bytes | Path, where: str, colours: Mapping[Colour, int] | None = None) -> Ids:
    """Return the ids of a label file, (height, width) integers; a palette picture gives its indices, if not renumbered.

    Args:
        stored: the content of the file, or its path.
        where: what error messages call it.
        colours: the id of each colour, for files that show ids as 8-bit colours, in a palette, too; None if nothing
            says what the ids are. Of colours with 16 bits a channel, as SYNTHIA has, the first channel holds the ids.

    Raises:
        DatasetError: if it cannot be decoded, is lossy, or its colours do not stand for ids.
    """
    picture, values = decode_exact(stored, where)
    if picture.mode not in _ID_MODES and not picture.mode.startswith("I;16"):
        raise DatasetError(
            f"{where}: is a picture of the mode {picture.mode}, which holds no ids. Labels are PNG files."
        )
    if picture.mode in ("P", "PA"):
        return ids_of_palette(picture, where, colours)
    if picture.mode in ("RGB", "RGBA"):
        content = content_of(stored)
        if _has_deep_colours(content):
            values = values[..., 0] * np.uint16(256) + _low_bytes(content)[..., 0]
    if values.ndim == 3:
        values = _ids_of_colours(values, where, colours or {})
    return values.astype(np.uint8) if values.dtype.kind == "b" else _whole(values, where)


def _whole(values: NDArray[Any], where: str) -> NDArray[Any]:
    """The ids of a grey picture, which geographic programs store as floats. Raises DatasetError for any other float."""
    if values.dtype.kind != "f":
        return values
    if (wrong := ~(np.abs(values) < _EXACT) | (values % 1 != 0)).any():
        y, x = (int(part[0]) for part in np.nonzero(wrong))
        raise DatasetError(f"{where}: holds {values[y, x]:g} at ({x}, {y}); labels are whole numbers.")
    return values.astype(np.int32)


def segment_runs(stored: bytes | Path, where: str) -> Runs:
    """Return the ids of a panoptic label: red + 256 green + 65536 blue, or the values of a grey picture.

    Raises:
        DatasetError: if it cannot be decoded, is lossy, or holds floats that are not whole.
    """
    picture, channels = decode_exact(stored, where)
    if len(picture.getbands()) > 1 and picture.mode != "RGB":
        channels = np.asarray(picture.convert("L" if picture.mode == "LA" else "RGB"))
    if channels.ndim == 2:
        return Runs.of(_whole(channels, where).astype(np.int32))
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


def _ids_of_colours(values: NDArray[Any], where: str, colours: Mapping[Colour, int]) -> NDArray[Any]:
    if values.shape[2] == 2:  # grey with transparency
        return values[..., 0]
    is_grey = bool((values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all())
    if colours:
        place = np.array([65536, 256, 1])
        codes, known = values[..., :3].astype(np.int32) @ place, np.array([*colours]) @ place
        order = np.argsort(known)
        found = order[np.searchsorted(known[order], codes).clip(max=len(known) - 1)]
        if not (wrong := known[found] != codes).any():  # first of all: some colours of classes are grey
            ids: NDArray[Any] = np.array([*colours.values()], np.uint8)[found]
            return ids
        if not is_grey:
            y, x = (int(part[0]) for part in np.nonzero(wrong))
            raise DatasetError(
                f"{where}: has the colour {values[y, x, :3].tolist()} at ({x}, {y}), which is no class's."
            )
    if is_grey:
        return values[..., 0]
    raise DatasetError(
        f"{where}: is a picture of colours, not of ids. --ids names the set whose colours they are "
        f"({', '.join(coloured_schemes())})."
    )
