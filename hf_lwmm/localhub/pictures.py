"""Types of the pictures that browsers show, and headers with which a file of others does nothing in a browser."""

from __future__ import annotations

from pathlib import PurePosixPath

_TYPES = {
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
# Sandboxed, as a picture in SVG may have scripts that would run where it is opened by itself.
INERT = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def media_type(path: str) -> str | None:
    """Return the type of a picture that browsers show, by its suffix; None for all other files."""
    return _TYPES.get(PurePosixPath(path).suffix.lower())
