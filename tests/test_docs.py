"""The documentation names files, options and Python names that exist, and its site builds without a warning."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

import hf_lwmm
from hf_lwmm.cli import COMMANDS, app, load_command
from hf_lwmm.recipes.recipe import read_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "scripts/space/README.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "hf_lwmm").rglob("README.md"),
        *(ROOT / "model_cards").glob("*.md"),
    ]
)
TOP = ("hf_lwmm", "tests", "scripts", "docs", "notebooks", "model_cards", r"\.ci")
_PATH = re.compile(rf"^(?:(?:{'|'.join(TOP)})/[\w./*-]*|[\w-]+\.(?:md|toml|yml))$")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")
MADE_BY_RUNNING = ("hf_lwmm.yaml", "report.md", "ranking.md")  # by a merge, an evaluation, a sweep


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def inline_code(text: str) -> Iterator[str]:
    for code in re.findall(r"`([^`]+)`", prose(text)):
        yield " ".join(code.split())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / target for target in _LINK.findall(prose(text))]
    spoken = [ROOT / code for code in inline_code(text) if _PATH.match(code) and code not in MADE_BY_RUNNING]
    folders = (page.parent, ROOT, ROOT / "hf_lwmm")  # a page of a room may name its neighbours
    lacking = [named(path) for path in linked if not path.exists()]
    lacking += [
        str(path.relative_to(ROOT))
        for path in spoken
        if not any(list(folder.glob(str(path.relative_to(ROOT)).rstrip("/"))) for folder in folders)
    ]
    assert not lacking


def command_lines(text: str) -> Iterator[str]:
    """Whole command lines: those in blocks of shell or of a session."""
    for language, block in _FENCE.findall(text):
        if language in ("sh", "text", "console"):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                typed = language == "sh" or line.startswith("$ ")
                found = re.search(r"^(?:\$ )?(?:[\w./]*/)?hf-lwmm (.*)|-m hf_lwmm (.*)", line.split(" #")[0])
                if typed and found:
                    yield found[1] or found[2]


def mentions(text: str) -> Iterator[str]:
    """Commands in running text, with placeholders and left-out parts."""
    for code in inline_code(text):
        if found := re.search(r"^hf-lwmm ([a-z].*)|-m hf_lwmm ([a-z].*)", code):
            yield found[1] or found[2]


def notebook_text(path: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


@cache
def sources() -> dict[str, str]:
    texts = {named(path): path.read_text(encoding="utf-8") for path in PAGES}
    return texts | {named(path): notebook_text(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}


@cache
def loaded(name: str) -> Any:
    assert name in COMMANDS, f"there is no command {name}"
    return load_command(name)


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words begin with, and the rest of the words."""
    command, rest = loaded(words[0]), words[1:]
    while getattr(command, "commands", None):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def parse(line: str) -> None:
    command, words = find(shlex.split(line))
    parent = app.make_context("hf-lwmm", [])  # whose settings a command inherits
    command.make_context("hf-lwmm", words, parent)  # parses, and runs nothing


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page, text in sources().items() for line in command_lines(text)]
)
def test_every_command_line_parses(page: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    ("page", "line"), [(page, line) for page, text in sources().items() for line in mentions(text)]
)
def test_every_command_that_is_mentioned_has_its_options(page: str, line: str) -> None:
    command, words = find(line.replace("[", " ").replace("]", " ").split())
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", sources())
def test_python_examples_compile_and_use_public_names(page: str) -> None:
    blocks = [code for language, code in _FENCE.findall(sources()[page]) if language == "python"]
    names = set()
    for tree in map(ast.parse, blocks):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hf_lwmm":
                names.add(node.attr)
            if isinstance(node, ast.ImportFrom) and node.module == "hf_lwmm":
                names |= {alias.name for alias in node.names}
    assert names - {"networks", "localhub"} <= set(hf_lwmm.__all__)


@pytest.mark.parametrize("page", sources())
def test_every_module_that_a_page_runs_or_imports_exists(page: str) -> None:
    names = re.findall(r"(?:python -m|from|import) ((?:hf_lwmm|scripts)(?:\.\w+)+)", sources()[page])
    paths = [ROOT / name.replace(".", "/") for name in names]
    assert not [path for path in paths if not path.is_dir() and not path.with_suffix(".py").is_file()]


def test_notebooks_and_the_space_use_the_public_face_alone() -> None:
    scripts = [*(ROOT / "notebooks").glob("*.py"), *(ROOT / "scripts" / "space").glob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in scripts]
    texts += [notebook_text(path) for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert texts and not [found for text in texts for found in re.findall(r"(?:from|import) hf_lwmm\.\w+", text)]


def test_recipes_in_the_documentation_are_recipes() -> None:
    texts = [(ROOT / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")]
    blocks = [code for text in texts for language, code in _FENCE.findall(text) if language == "yaml"]
    assert blocks and all(read_recipe(block).models for block in blocks)
    card = ROOT / "model_cards" / "streets-gta-lwmm" / "hf_lwmm.yaml"
    assert yaml.safe_load(card.read_text(encoding="utf-8"))["schema"] == 3 and read_recipe(card.read_text()).output


def test_the_readme_counts_the_methods() -> None:
    counts = re.findall(r"(\d+) ways (?:of merging|to merge)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(map(int, counts)) == {len(hf_lwmm.list_methods())} and len(counts) == 2


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=named)
def test_a_generated_page_says_to_readers_of_its_file_where_it_can_be_read(page: Path) -> None:
    stub = re.search(r"<!-- generated: \w+ -->\n(.+?)<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    assert stub and ("`mkdocs serve` shows this page" in " ".join(stub[1].split()) or _LINK.search(stub[1]))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    knobs = (tmp_path / "site" / "reference" / "knobs" / "index.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in knobs for name in ("--bn-stats", "--option density", "--start"))
    for page in (tmp_path / "site").rglob("*.html"):  # nothing is loaded from elsewhere when a page is read
        found = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?://[^\"]*)", page.read_text())
        assert all(address.startswith(config.site_url) for address in found)
