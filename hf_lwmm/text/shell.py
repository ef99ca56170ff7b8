"""Write command lines that shells read as they are meant, whatever is in the names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable


def shell_line(words: Iterable[str]) -> str:
    """Return words as one line of a shell; a word that does not print is quoted as $'...', with escapes.

    Bash, zsh and ksh read such words, and so do other shells of POSIX.1-2024.
    """
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in words)


def operand(word: str) -> str:
    """Return a path or a name as no program takes it for an option: `./-x` for `-x`."""
    return f"./{word}" if word.startswith("-") else word


def _escaped(word: str) -> str:
    """A word in $'...', the bytes of characters that do not print as octal escapes."""
    return "$'" + "".join(char if _is_plain(char) else _octal(char) for char in word) + "'"


def _is_plain(char: str) -> bool:
    return char.isprintable() and char not in "\\'"


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))
