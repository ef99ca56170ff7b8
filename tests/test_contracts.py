"""The rooms' contract of pyproject.toml: it holds, and no import that breaks it goes unseen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# Text for the end of a module, and what the message names.
VIOLATIONS = {
    "inside a function": (
        "methods/base.py",
        "def late():\n    import hf_lwmm.engine.streaming",
        "hf_lwmm.methods.base -> hf_lwmm.engine.streaming",
    ),
    "for types only": (
        "labels/label_sets.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hf_lwmm.api import merge",
        "hf_lwmm.labels.label_sets -> hf_lwmm.api.merge",
    ),
    "from images to networks": (
        "data/runs.py",
        "import hf_lwmm.networks.layers",
        "hf_lwmm.data.runs -> hf_lwmm.networks.layers",
    ),
    "in a circle inside a room": ("hub/refs.py", "def late():\n    import hf_lwmm.hub.client", ".refs -> .client"),
    "in a room that no layer lists": ("attic/__init__.py", "", "hf_lwmm.attic"),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package beside its pyproject.toml."""
    shutil.copytree(REPOSITORY / "hf_lwmm", tmp_path / "hf_lwmm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path / "hf_lwmm"


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=package.parent, capture_output=True, text=True, check=False)


def test_every_room_imports_only_rooms_below_it(package: Path) -> None:
    done = lint(package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("import_", VIOLATIONS)
def test_an_import_that_breaks_the_contract_is_seen(import_: str, package: Path) -> None:
    name, text, named = VIOLATIONS[import_]
    (package / name).parent.mkdir(exist_ok=True)
    with (package / name).open("a") as module:
        module.write(f"\n{text}\n")
    done = lint(package)
    assert done.returncode == 1 and named in done.stdout, done.stdout
