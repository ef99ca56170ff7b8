"""`hf extensions install OWNER/hf-lwmm` and `hf lwmm ...`, by the installed huggingface_hub, without GitHub."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import httpx2
import pytest
from huggingface_hub.cli import extensions

from hf_lwmm import __version__
from hf_lwmm.errors import EXTRAS

REPOSITORY = Path(__file__).parents[1]
MODELS = REPOSITORY / "hf_lwmm" / "demo" / "models"
Hf = Callable[..., "subprocess.CompletedProcess[str]"]


def _from_checkout(method: str, url: str, **options: Any) -> SimpleNamespace:
    """Answer as GitHub would for a file of the repository."""
    path = REPOSITORY / url.partition("/HEAD/")[2]
    if "/HEAD/" not in url or not path.is_file():
        raise httpx2.HTTPError(f"404: {url}")
    return SimpleNamespace(text=path.read_text(), content=path.read_bytes(), json=lambda: json.loads(path.read_text()))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder in which the extension has been installed as from OWNER/hf-lwmm on GitHub."""
    home = tmp_path_factory.mktemp("home")
    archive = home / "HEAD.zip"
    with ZipFile(archive, "w") as zipped:
        for path in (REPOSITORY / "pyproject.toml", REPOSITORY / "README.md", REPOSITORY / "LICENSE"):
            zipped.write(path, f"hf-lwmm-HEAD/{path.name}")
        for path in (REPOSITORY / "hf_lwmm").rglob("*"):
            if "__pycache__" not in path.parts:
                zipped.write(path, f"hf-lwmm-HEAD/{path.relative_to(REPOSITORY)}")

    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(home), str(archive)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = str(next(home.glob("*.whl")))

    def run(command: list[str], **options: Any) -> Any:
        if command[-1] != "https://github.com/OWNER/hf-lwmm/archive/HEAD.zip":
            return subprocess.run(command, **options)
        done = subprocess.run([*command[:-1], "--no-deps", wheel], **options)
        # In place of fetching what it depends on: the packages of this environment but for those of extras.
        block = f"import sys; sys.modules.update(dict.fromkeys({list(EXTRAS)}))"
        others = next((home / ".local").rglob("site-packages")) / "others.pth"
        others.write_text("\n".join([block, *site.getsitepackages()]))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setattr(extensions, "_github_request", _from_checkout)
        patch.setattr(extensions, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run}))
        owner, repo_name, short_name = extensions._normalize_repo_id("OWNER/hf-lwmm")
        extensions._install_extension(owner=owner, repo_name=repo_name, short_name=short_name, commit_sha="0" * 40)
    yield home


@pytest.fixture
def hf(home: Path) -> Hf:
    """The stock `hf` command with that home."""
    executable = shutil.which("hf", path=Path(sys.executable).parent)
    assert executable
    environment = {**os.environ, "HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    environment.pop("PYTHONPATH", None)  # which would hide the installed package

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([executable, *arguments], env=environment, capture_output=True, text=True, cwd=home)

    return run


def test_it_is_installed_as_a_python_package(home: Path) -> None:
    manifest = json.loads((home / ".local/share/hf/extensions/hf-lwmm/manifest.json").read_text())
    assert manifest["type"] == "python" and manifest["short_name"] == "lwmm"
    assert manifest["description"] == "Layer-wise model merging for vision checkpoints on the Hugging Face Hub"
    assert Path(manifest["executable_path"]).name == "hf-lwmm"
    assert not (REPOSITORY / "hf-lwmm").exists()  # a file of this name would be taken for the whole extension


def test_hf_lwmm_runs_it(hf: Hf) -> None:
    version = hf("lwmm", "--version")
    assert version.returncode == 0 and version.stdout.strip() == __version__, version.stderr
    assert "lwmm" in hf("--help").stdout and "OWNER/hf-lwmm" in hf("extensions", "list").stdout
    methods = hf("lwmm", "methods")
    assert methods.returncode == 0 and "layerwise" in methods.stdout
    wrong = hf("lwmm", "merge", "one")
    assert wrong.returncode == 1 and "at least two models" in wrong.stderr


def test_hf_lwmm_merges_with_what_the_extension_brings(hf: Hf, home: Path) -> None:
    merged = hf("lwmm", "merge", str(MODELS / "streets-gta"), str(MODELS / "streets-night"), "--output", "merged")
    assert merged.returncode == 0, merged.stderr
    assert (home / "merged" / "model.safetensors").is_file() and (home / "merged" / "README.md").is_file()
    lacking = hf("lwmm", "evaluate", "merged", "--data", "folder")
    assert lacking.returncode == 1 and "pip install 'hf-lwmm[" in lacking.stderr, lacking.stderr
