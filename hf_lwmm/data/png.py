"""Decode labels that are plain PNG files with kornia-rs, in a quarter to a half of the time that Pillow takes.

Pictures are left to Pillow, which lets other threads run meanwhile.
"""

from __future__ import annotations

from typing import Any

from kornia_rs.io import decode_image_png_u8, decode_image_png_u16
from numpy.typing import NDArray
from PIL import Image

# The decoder, what it calls the channels, and the bits of each, by the picture's mode.
_DECODERS: dict[str, tuple[Any, str, int]] = {
    "L": (decode_image_png_u8, "mono", 8),
    "I;16": (decode_image_png_u16, "mono", 16),
    "RGB": (decode_image_png_u8, "rgb", 8),
}
_DEPTH = 24  # place of the byte that says how many bits a channel has


def plain_values(picture: Image.Image, content: bytes) -> NDArray[Any] | None:
    """Return the values of a PNG of greys or colours, (height, width) or (height, width, 3) of uint8 or uint16.

    Args:
        picture: as Pillow opened it; it need not be decoded.
        content: the bytes of the file.

    Returns:
        The values, or None for a PNG of another kind or a damaged one, of which Pillow says what is wrong. The checksum
        of each chunk tells damage; that of the compressed bytes within, which Pillow checks too, is not looked at.
    """
    decode, channels, depth = _DECODERS.get(picture.mode, (None, "", 0))
    if decode is None or content[_DEPTH] != depth:
        return None
    try:
        values: NDArray[Any] = decode(content, (picture.height, picture.width), channels)
    except Exception:  # it raises nothing more special
        return None
    return values[..., 0] if channels == "mono" else values
