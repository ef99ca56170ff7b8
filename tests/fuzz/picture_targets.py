"""Label pictures, changed in their bytes."""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path

import numpy as np
from fuzz.changes import BYTES, changed_bytes
from fuzz.harness import Target
from PIL import Image

from hf_lwmm.data.decoding import label_ids


def _saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, **{"format": "PNG", **options})  # type: ignore[arg-type]
    return file.getvalue()


def _with_right_sums(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums of their content, as a hostile one would."""
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + size]
        parts.append(content[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        place += 12 + size
    return b"".join(parts)


def label(folder: Path) -> Target:
    """Ids are those that Pillow reads, if it does: of PNG files it checks a sum more, that of what is compressed."""
    ids = np.random.default_rng(0).integers(0, 3, (6, 5)).astype(np.uint8)
    grey = Image.fromarray(ids)
    palette = grey.convert("P")
    seeds = [
        _saved(grey),
        _saved(palette),
        _saved(Image.fromarray(ids.astype(np.uint16))),
        _saved(Image.merge("RGB", [grey] * 3)),
        _saved(Image.merge("RGB", [grey] * 3), format="WEBP", lossless=True),
        _saved(grey, format="TIFF"),
        _saved(grey, format="BMP"),
    ]

    def change(content: bytes, draw: random.Random, other: bytes) -> bytes:
        changed = changed_bytes(content, draw, other, BYTES)
        return _with_right_sums(changed) if changed.startswith(b"\x89PNG") and draw.random() < 0.8 else changed

    def check(content: bytes) -> str:
        found = label_ids(content, "label.png")
        assert found.ndim == 2 and found.dtype.kind in "ui", "no map of ids"
        try:
            theirs = np.asarray(Image.open(io.BytesIO(content)))
        except OSError:
            assert content.startswith(b"\x89PNG"), "read though Pillow refuses it"
            return "read though Pillow refuses it"
        assert found.shape == theirs.shape[:2], "another size"
        if theirs.ndim == 2 and theirs.dtype.kind in "ui":
            assert (found == theirs).all(), "other ids than Pillow reads"
        return "read"

    return Target(seeds, change, check)
