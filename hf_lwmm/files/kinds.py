"""Recognise files by their first bytes, and say what those are that were meant to be something else."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

HEAD = 512  # bytes that tell a kind

_LFS = b"version https://git-lfs.github.com/spec/"
# The first bytes of files that come in the place of others, what such a file is, and what to do.
_MAGIC = (
    (b"\x1f\x8b", "is compressed with gzip", "Unpack it first (gunzip, or tar -xzf)."),
    (b"BZh", "is compressed with bzip2", "Unpack it first (bunzip2, or tar -xjf)."),
    (b"\xfd7zXZ\0", "is compressed with xz", "Unpack it first (unxz, or tar -xJf)."),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "Unpack it first (unzstd)."),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", "Unpack it first (7z x)."),
    (b"Rar!", "is a RAR archive", "Unpack it first (unrar x)."),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, such as Keras writes", "Save its weights with safetensors or torch."),
    (b"GGUF", "is a GGUF file", "Use the weights that it was made from."),
)

# A pickle of protocol 0 or 1 has no mark of its own: a whole number and its end, as torch begins; or a dictionary, a
# list or an object, as other code does.
_OLD_PICKLE = re.compile(rb"L\d{1,30}L\n\.|\((dp|lp|ip)\d|[}\]]q\0|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")


def foreign_kind(head: bytes) -> str | None:
    """Say what a file is, and what to do, from its first `HEAD` bytes; None if it is none of the known mistakes."""
    if not head:
        return "is empty. Download or save it again."
    if head.startswith(_LFS):
        return "is a Git LFS pointer, not the file itself. Run `git lfs pull` in its clone, or download it."
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)", head, re.IGNORECASE):
        return (
            "is a web page, not the file itself: a server answered the download with it, as Google Drive does for "
            "large files. Download it in a browser, and look at its size."
        )
    if head[257:262] == b"ustar":
        return "is a tar archive. Unpack it first (tar -xf)."
    return next((f"{what}. {remedy}" for magic, what, remedy in _MAGIC if head.startswith(magic)), None)


# Kinds of files that are something else than weights: text, by the ends of names, and others, by their first bytes.
_TEXTS = {
    ".csv": "a table",
    ".html": "a web page",
    ".ipynb": "a notebook",
    ".json": "a JSON document",
    ".md": "Markdown text, such as a model card",
    ".py": "Python code",
    ".toml": "a TOML document",
    ".yaml": "a YAML document",
    ".yml": "a YAML document",
}
_OTHERS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF-", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet table"),
)


def kind_of_other(name: str, head: bytes) -> str | None:
    """Return what a file that holds no weights is, from its name and first bytes; None if they do not tell."""
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return what
    try:
        getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return None
    return None if b"\0" in head else _TEXTS.get(name[name.rfind(".") :].lower() if "." in name else "", "text")


def is_safetensors(head: bytes, size: int) -> bool:
    """Return True for the beginning of a safetensors file of `size` bytes: a JSON object behind its length."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def is_torch(head: bytes) -> bool:
    """Return True for the beginning of a zip archive, or of a pickle, such as torch wrote before 1.6."""
    return head.startswith((b"PK", b"\x80")) or _OLD_PICKLE.match(head) is not None
