"""Place sliding windows on an image."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[int, int, int, int]  # y1, y2, x1, x2


def window_boxes(size: Sequence[int], crop: Sequence[int], stride: Sequence[int]) -> list[Box]:
    """Return the windows that cover an image, row by row; the last of a row or column is moved back inside.

    An image that is smaller than a window is one window, without padding.

    Args:
        size: (height, width) of the image in pixels.
        crop: (height, width) of a window.
        stride: (vertical, horizontal) step between windows.
    """
    rows, columns = (_spans(*args) for args in zip(size, crop, stride, strict=True))
    return [(*row, *column) for row in rows for column in columns]


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    count = -(-max(length - crop, 0) // stride) + 1
    ends = [min(index * stride + crop, length) for index in range(count)]
    return [(max(end - crop, 0), end) for end in ends]
