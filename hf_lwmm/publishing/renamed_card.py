"""Give the card of a folder the name of the repository that the folder is pushed to."""

from __future__ import annotations

import re

from hf_lwmm.text import plain

_FENCE = re.compile(r"^```python\n.*?^```$", re.DOTALL | re.MULTILINE)


def renamed_card(text: str, old: str, new: str) -> str:
    """Return a card with a repository's name in its title, its scores and its examples.

    Everything else stays, and so do examples that name a file in the folder.

    Args:
        text: the card.
        old: the folder's name, which the card has so far.
        new: the repository, such as org/name.
    """
    text = re.sub(rf"^(# |- name: ){re.escape(plain(old))}$", lambda found: found[1] + new, text, flags=re.MULTILINE)

    def renamed(code: re.Match[str]) -> str:
        if f'"{old}/' in code[0]:
            return code[0]
        return code[0].replace(f'"{old}"', f'"{new}"').replace(f'"local-dir:{old}"', f'"hf-hub:{new}"')  # timm's

    return _FENCE.sub(renamed, text)
