"""The error where a package is missing that only some commands need."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import hf_lwmm
from hf_lwmm.errors import EXTRAS, ExtraError, HfLwmmError, naming_extras


def test_the_message_names_the_package_and_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with (
        pytest.raises(ExtraError, match=r"^Drawing needs matplotlib, .*'hf-lwmm\[plots\]'") as raised,
        naming_extras("Drawing"),
    ):
        import matplotlib  # noqa: F401
    assert isinstance(raised.value, HfLwmmError) and isinstance(raised.value, ImportError)


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_the_extra_brings_the_package(package: str, extra: str) -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    brought = re.search(rf"^{extra} = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
    name = {"PIL": "pillow", "markdown_it": "markdown-it-py"}.get(package, package.replace("_", "-"))
    assert brought is not None and f'"{name}>=' in brought[1]


def test_every_package_of_an_extra_that_is_imported_is_known() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    table = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", project, re.MULTILINE | re.DOTALL)[0]
    required = {name.lower() for name in re.findall(r'"([\w-]+)(?:\[\w+\])?>=', table)}
    brought = {
        package
        for package, names in packages_distributions().items()
        if required & {name.lower().replace("_", "-") for name in names}
    }
    imported = set()
    for path in Path(hf_lwmm.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    assert {"torch", "PIL"} <= imported & brought <= EXTRAS.keys()


def test_another_missing_module_is_no_extra() -> None:
    with pytest.raises(ModuleNotFoundError), naming_extras():
        import no_such_module  # noqa: F401


def test_public_names_whose_module_needs_an_extra_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("hf_lwmm.localhub")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ["starlette", *(name for name in sys.modules if name.startswith("starlette."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraError, match=r"starlette.*'hf-lwmm\[hub\]'"):
        hf_lwmm.LocalHub  # noqa: B018


def test_a_network_needs_the_extra_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("hf_lwmm.networks")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    with pytest.raises(ExtraError, match=r"^Loading a network needs torchvision, .*'hf-lwmm\[networks\]'"):
        hf_lwmm.load("org/name")
