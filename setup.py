"""What of the metadata is computed: the README, whose links and pictures lead to the repository when PyPI shows it."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
REPOSITORY = re.search(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]
_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)")


def absolute(found: re.Match[str]) -> str:
    picture, text, path = found.groups()
    view = "raw" if picture else "tree" if path.endswith("/") else "blob"
    return f"{picture}{text}({REPOSITORY}/{view}/main/{path})"


setup(
    long_description=_LINK.sub(absolute, (ROOT / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
