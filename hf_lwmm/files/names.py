"""Make names that any file system takes out of texts that are too long, or hold what no name should."""

from __future__ import annotations

import hashlib
import os
import re

LONGEST = 255  # bytes of a name; the limit of ext4, XFS, Btrfs, APFS (there in other units) and NTFS
_UNSAFE = re.compile(r"[^\w.-]+")
_DIGITS = 8  # of the hash that keeps two shortened names apart


def fitted(stem: str, suffix: str = "") -> str:
    """Return a name that ends in `suffix`: with the whole stem, or with its beginning and a hash of all of it."""
    room = LONGEST - len(os.fsencode(suffix))
    whole = os.fsencode(stem)
    if len(whole) <= room:
        return stem + suffix
    digest = hashlib.sha256(whole).hexdigest()[:_DIGITS]
    return f"{whole[: room - _DIGITS - 1].decode(errors='ignore')}-{digest}{suffix}"


def tame(text: str) -> str:
    """Return a text as a part of a name: its letters, digits, dots, hyphens and underscores, with _ for all else."""
    return _UNSAFE.sub("_", text)
