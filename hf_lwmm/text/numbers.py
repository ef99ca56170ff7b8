"""Print numbers with the digits that tell them apart."""

from __future__ import annotations

import math

_DIGITS = 8  # after the point; what is closer to 1 is shown by its difference


def near_one(value: float) -> str:
    """Return a cosine with four digits, or as many as it takes to show two of its difference from 1: 0.99987.

    Models of one pre-training mostly have cosines that two digits round to 1.
    """
    rest = 1 - value
    if rest <= 0:
        return "1.0000"
    digits = max(4, math.ceil(round(-math.log10(rest), 9)) + 1)  # 1 - 0.9999 is not quite 0.0001
    return f"{value:.{digits}f}" if digits <= _DIGITS else f"1 - {rest:.1e}"
