"""Give the card of a folder the name of the repository that the folder is pushed to."""

from __future__ import annotations

import re

from hf_lwmm.text import plain

_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```python\n.*?^```$", re.DOTALL | re.MULTILINE)


def renamed_card(text: str, folder: str, new: str) -> str:
    """Return a card with a repository's name in its title, its scores and its examples.

    Everything else stays, and so do examples that name a file in the folder. The name that the card has so far is its
    title, if its examples load what is called so, as they do in a folder that was renamed or pushed to another
    repository; else it is the folder's.

    Args:
        text: the card.
        folder: the folder's name.
        new: the repository, such as org/name.
    """
    title, examples = _TITLE.search(text), _FENCE.findall(text)
    old = title[1] if title is not None and any(map(_quoted(title[1]).search, examples)) else folder

    def renamed(code: re.Match[str]) -> str:
        if f'"{old}/' in code[0]:
            return code[0]
        return _quoted(old).sub(lambda name: f'"hf-hub:{new}"' if name[1] else f'"{new}"', code[0])

    text = re.sub(rf"^(# |- name: ){re.escape(plain(old))}$", lambda found: found[1] + new, text, flags=re.MULTILINE)
    return _FENCE.sub(renamed, text)


def _quoted(name: str) -> re.Pattern[str]:
    """A name in code, which may have before it what timm calls a folder or a repository."""
    return re.compile(rf'"(local-dir:|hf-hub:)?{re.escape(name)}"')
