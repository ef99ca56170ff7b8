"""Files when the disk is full, or the process dies, at any step: old or new under the name, never half of either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import calls
import disk
import numpy as np
import pytest
import torch
from manifests import Arrays, shrunk, write

import hf_lwmm
from hf_lwmm.files import renaming
from hf_lwmm.files.scratch import tidy

pytestmark = pytest.mark.usefixtures("without_plots")


def network(seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return {f"block.{i}.conv.weight": draw.standard_normal((4, 3)).astype(np.float32) for i in (1, 2)}


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{seed}.safetensors", network(seed)) for seed in (1, 2)]


@pytest.fixture(params=["in one step", "in two steps"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems that let two folders change names at once, and others."""
    if request.param == "in two steps":
        monkeypatch.setattr(renaming, "_rename", lambda *given: False)


def contents(path: Path) -> dict[str, bytes]:
    """Return the content of a file, or of each file of a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


def check_every_step(work: Callable[[], object], target: Path, *, overwrite: bool = True) -> None:
    """Whatever fails, old or new stands under the name, and nothing else is left once the next run has tidied up."""
    work()
    new = contents(target)
    beside = sorted(each for each in target.parent.iterdir() if each != target)

    def reset() -> None:
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        if overwrite and not target.suffix:
            target.mkdir()
        if overwrite:
            (target if target.suffix else target / "README.md").write_text("---\ntags: [hf-lwmm]\n---\nold")

    reset()
    old = contents(target) if overwrite else None

    def check(death: bool) -> None:
        if death:
            tidy(target.parent)  # as any command does that writes there
        assert (contents(target) if target.exists() else None) in (old, new)
        assert sorted(each for each in target.parent.iterdir() if each != target) == beside

    assert disk.each_step(work, reset, check) > 8
    assert contents(target) == new


@pytest.mark.usefixtures("renames")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("how", [{}, {"max_shard_size": 48}], ids=["one file", "shards"])
def test_a_merge(how: dict[str, int], overwrite: bool, models: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "out"
    check_every_step(lambda: calls.merge(models, output=target, overwrite=True, **how), target, overwrite=overwrite)


def test_a_merge_as_a_torch_file(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path / f"{seed}.pth")
        torch.save({name: torch.from_numpy(array) for name, array in network(seed).items()}, paths[-1])
    target = tmp_path / "out"
    check_every_step(lambda: calls.merge(paths, output=target, overwrite=True, format="torch"), target)


@pytest.mark.parametrize("name", ["out", "out.safetensors", "out.pth"])
def test_a_conversion(name: str, tmp_path: Path) -> None:
    arrays = {key: np.ones(shape, np.float32) for key, shape, _ in shrunk("adaptsegnet_deeplab_vgg16", 16)[:30]}
    model = write(tmp_path / "model.safetensors", arrays)
    target = tmp_path / name
    check_every_step(lambda: hf_lwmm.convert(model, target, to="fada", overwrite=True), target)


def test_an_interruption_between_the_two_steps_gives_the_old_output_its_name_back(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renaming, "_rename", lambda *_: False)
    target = tmp_path / "out"
    calls.merge(models, output=target)
    before = contents(target)
    rename = Path.rename

    def interrupted(path: Path, other: Path) -> Path:
        found = rename(path, other)
        if path == target:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calls.merge(models, output=target, overwrite=True, method="isotropic")
    assert contents(target) == before
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []
