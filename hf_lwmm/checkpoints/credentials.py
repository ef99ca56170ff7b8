"""Find passwords, tokens and keys in settings, by the names of entries and by their own form."""

from __future__ import annotations

import re
from typing import Any

_NAMED = re.compile(
    r"(^|_)(passw(or)?d|passphrase|secret|credentials?|authorization|cookie|"
    r"(api|access|secret|private|account|auth)_?key(_id)?|apikey|(auth|access|hf|hub|api|use_auth|refresh|bearer)_token)$"
)
# Networks have tokens, too, such as `bos_token`: "<s>" and `class_token`: "learnable-embedding".
_TOKEN = re.compile(r"(^|_)token$")
_CREDENTIAL = re.compile(r"(?=.*\d)[\w.~+/=:-]{16,}", re.ASCII)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_FORMS = re.compile(
    r"hf_[A-Za-z0-9]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|(?<=\bBearer )[\w.~+/=-]{8,}",
    re.ASCII,
)
_USER = re.compile(r"""(?<=://)[^\s/"'<>]*@""")
_IN_QUERY = re.compile(r"""(?<=[?&;])([A-Za-z][\w.-]{0,60})=([^&;#\s"'<>]+)""", re.ASCII)
_SIGNED = re.compile(r"(^|_)(signature|sig)$")  # of a URL that opens what is not public


def is_credential(name: Any, value: Any) -> bool:
    """Return whether an entry holds a password, a token or a key. `token: 5` and `pad_token: "<pad>"` are none."""
    if not isinstance(name, str) or value is None or isinstance(value, bool | int | float):
        return False
    words = _snake_case(name)
    if _NAMED.search(words) or words == "token":
        return True
    return bool(_TOKEN.search(words)) and isinstance(value, str) and bool(_CREDENTIAL.fullmatch(value))


def without_credentials(text: str) -> str:
    """Return a text without tokens that are known by their form, and without the user and the keys in its URLs."""
    return _IN_QUERY.sub(_without_value, _USER.sub("", _FORMS.sub("", text)))


def _without_value(entry: re.Match[str]) -> str:
    words = _snake_case(entry[1])
    secret = _NAMED.search(words) or _TOKEN.search(words) or _SIGNED.search(words)
    return f"{entry[1]}=" if secret else entry[0]


def _snake_case(name: str) -> str:
    return _WORDS.sub("_", name).lower()
