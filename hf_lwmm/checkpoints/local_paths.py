"""Take out of settings that are published what belongs to somebody's machine or account: paths and secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_lwmm.checkpoints.credentials import is_credential, without_credentials

_NAMES = ("id2label", "label2id")  # whose texts are no paths, whatever they look like
_ORIGIN = "_name_or_path"  # where a model was loaded from
# A text that is a path as a whole, with spaces and all, and its parts otherwise, of which some are paths.
_PATH = re.compile(r"(file://)?(~[^/\n]*/|/[^/\n]+/|[A-Za-z]:[\\/]|\\\\)[^\n]*[^\s\\/][^\n]*")
_PART = re.compile(
    r"""(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s"'<>`]*)"""
    r"""|(?<![A-Za-z0-9])[A-Za-z]:[\\/][^\s"'<>`|,;:=()\[\]{}]*"""
    r"""|[^\s"'<>`|,;:=()\[\]{}]+"""
)
_ABSOLUTE = re.compile(r"(/+[^/]+/|~[^\\/]*[\\/]|\$\w+[\\/]|%\w+%[\\/]|[A-Za-z]:[\\/]|\\\\[^\\]).*", re.DOTALL)
_QUOTED = re.compile(r"""(["'`])((?:~|/|file://|[A-Za-z]:[\\/]|\\\\)[^"'`\n]*)\1""")
_UPWARDS = re.compile(r"(^|[\\/])\.\.[\\/]")
# A path behind a sign, such as +/home/x, an option, such as -I/home/x, or a letter that no path has.
_INSIDE = re.compile(r"(^-[A-Za-z]|[^\w./\\]|[^\x00-\x7f])(/(home|Users|root)/|[A-Za-z]:[\\/])")
_HOSTED = re.compile(r"https?:", re.IGNORECASE)
_IN_HOME = re.compile(r"://[^/]*/+(home|Users|root)/")  # for other URLs than of the web: a file on some machine
_VALUE_IN_HOME = re.compile(r"(?<==)/+(home|Users|root)/[^&;#]*")
_OF_USER = re.compile(r"[\\/](home|Users)[\\/]+[^\\/]+$", re.IGNORECASE)


def without_local_paths(content: Any) -> Any:
    """Return the content of a JSON file without paths of somebody's machine and without secrets, at any depth.

    `_name_or_path`, which says where a model was loaded from, is left out, and so are passwords, tokens and keys. Any
    other path that is absolute, in a home, or leads upwards is cut to its last part, so that each setting is still
    there; nothing stays of one that ends in a slash, or in the name of a user.
    """
    if isinstance(content, Mapping):
        kept: dict[Any, Any] = {}
        for name, value in content.items():
            new = _cleaned(name) if isinstance(name, str) else name
            if name != _ORIGIN and not is_credential(name, value) and (new or not name):
                kept.setdefault(new, value if name in _NAMES else without_local_paths(value))
        return kept
    if isinstance(content, list):
        return [without_local_paths(value) for value in content]
    return _cleaned(content) if isinstance(content, str) else content


def _cleaned(text: str) -> str:
    text = without_credentials(text)
    if _PATH.fullmatch(text.strip()):
        return _last(text.strip())
    return _PART.sub(_shortened, _QUOTED.sub(_shortened_in_quotes, text))


def _shortened_in_quotes(quoted: re.Match[str]) -> str:
    sign, text = quoted.groups()
    return f"{sign}{_last(text)}{sign}" if _PATH.fullmatch(text) else quoted[0]


def _shortened(part: re.Match[str]) -> str:
    text = part[0]
    if not part["url"]:
        is_path = _ABSOLUTE.fullmatch(text) or _UPWARDS.search(text) or _INSIDE.search(text)
        return _last(text) if is_path else text
    if _HOSTED.match(text):
        return _VALUE_IN_HOME.sub(lambda value: _last(value[0]), text)
    return _last(text) if text.lower().startswith("file:") or _IN_HOME.search(text) else text


def _last(path: str) -> str:
    """The last part of a path; empty if that is the name of a user, or no name."""
    last = re.split(r"[\\/]", path)[-1]
    return "" if _OF_USER.search(path) or last in (".", "..") else last
