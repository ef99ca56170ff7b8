"""Take out of settings that are published what belongs to somebody's machine or account: paths and secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAMES = ("id2label", "label2id")  # whose texts are no paths, whatever they look like
_ORIGIN = "_name_or_path"  # where a model was loaded from
_SECRETS = (
    *("token", "use_auth_token", "auth_token", "access_token", "hf_token", "api_token", "api_key", "apikey"),
    *("password", "passwd", "secret", "secret_key"),
)
_HUB_TOKEN = re.compile("hf_[A-Za-z0-9]{20,}")
_CREDENTIALS = re.compile(r"""(?<=://)[^\s/"'<>]*@""")
# A text that is a path as a whole, with spaces and all, and its parts otherwise, of which some are paths.
_PATH = re.compile(r"(file://)?(~[^/\n]*/|/[^/\n]+/|[A-Za-z]:[\\/]|\\\\)[^\n]*[^\s\\/][^\n]*")
_PART = re.compile(
    r"""(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s"'<>`]*)"""
    r"""|(?<![A-Za-z0-9])[A-Za-z]:[\\/][^\s"'<>`|,;:=()\[\]{}]*"""
    r"""|[^\s"'<>`|,;:=()\[\]{}]+"""
)
_ABSOLUTE = re.compile(r"(/+[^/]+/|~[^\\/]*[\\/]|\$\w+[\\/]|%\w+%[\\/]|[A-Za-z]:[\\/]|\\\\[^\\]).*", re.DOTALL)
_UPWARDS = re.compile(r"(^|[\\/])\.\.[\\/]")
_INSIDE = re.compile(r"[^\w./\\](/(home|Users|root)/|[A-Za-z]:[\\/])")  # a path behind a sign, such as +/home/x
_OF_USER = re.compile(r"[\\/](home|Users)[\\/]+[^\\/]+$", re.IGNORECASE)


def without_local_paths(content: Any) -> Any:
    """Return the content of a JSON file without paths of somebody's machine and without secrets, at any depth.

    `_name_or_path`, which says where a model was loaded from, is left out, and so is a text under a name such as
    `token` or `password`. Of any other path that is absolute, in a home, or leads upwards, the last part stays, so that
    each setting is still there; nothing stays of one that ends in a slash, or in the name of a user.
    """
    if isinstance(content, Mapping):
        kept: dict[Any, Any] = {}
        for name, value in content.items():
            new = _cleaned(name) if isinstance(name, str) else name
            if name != _ORIGIN and not _is_secret(name, value) and (new or not name):
                kept.setdefault(new, value if name in _NAMES else without_local_paths(value))
        return kept
    if isinstance(content, list):
        return [without_local_paths(value) for value in content]
    return _cleaned(content) if isinstance(content, str) else content


def _is_secret(name: Any, value: Any) -> bool:
    known = isinstance(name, str) and name.lower().replace("-", "_") in _SECRETS
    return known and value is not None and not isinstance(value, bool)


def _cleaned(text: str) -> str:
    text = _HUB_TOKEN.sub("", text)
    if _PATH.fullmatch(text.strip()):
        return _last(text.strip())
    return _PART.sub(_shortened, _CREDENTIALS.sub("", text))


def _shortened(part: re.Match[str]) -> str:
    text = part[0]
    if part["url"]:
        return _last(text) if text.lower().startswith("file:") else text
    is_path = _ABSOLUTE.fullmatch(text) or _UPWARDS.search(text) or _INSIDE.search(text)
    return _last(text) if is_path else text


def _last(path: str) -> str:
    """The last part of a path; empty if that is the name of a user, or no name."""
    last = re.split(r"[\\/]", path)[-1]
    return "" if _OF_USER.search(path) or last in (".", "..") else last
