"""Draw a contact sheet of the rendered streets, a row for each style.

python -m scripts.uda.contact_sheet 12 sheet.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hf_lwmm.demo.streets import STYLES, render


def main(frames: int, path: Path) -> None:
    rows = [np.concatenate([render(style, seed).image for seed in range(frames)], 1) for style in STYLES]
    Image.fromarray(np.concatenate(rows)).save(path)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
