"""Errors and notes about a file of weights say whose it is, since training code gives all its files one name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from calls import merge
from huggingface_hub import HfApi
from safetensors.torch import save_file

import hf_lwmm
from hf_lwmm.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("without_plots")

STATE = {"l1.weight": torch.ones(64, 64), "l2.weight": torch.ones(3, 64)}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """The folders of two runs, the second of which has a damaged file."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        torch.save({"state_dict": STATE}, folder / "latest.pth")
    whole = (folders[1] / "latest.pth").read_bytes()
    (folders[1] / "latest.pth").write_bytes(whole[:-50])
    return folders


def test_a_file_in_a_folder_is_named_with_it(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^second: latest\.pth: a truncated or damaged torch file"):
        merge(runs, output=tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"^second:latest\.pth: a truncated or damaged torch file"):
        merge([f"{runs[0]}:latest.pth", f"{runs[1]}:latest.pth"], output=tmp_path / "out")
    assert "first: latest.pth: read the entry state_dict" in hf_lwmm.inspect(runs[0]).notes


def test_a_file_that_is_the_model_is_named_once(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^latest\.pth: a truncated or damaged torch file"):
        hf_lwmm.inspect(runs[1] / "latest.pth")


def test_safetensors_are_named_so_too(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_file(STATE, tmp_path / name / "model.safetensors")
    with (tmp_path / "second" / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match=r"^second: model\.safetensors: truncated or padded"):
        merge([tmp_path / "first", tmp_path / "second"], output=tmp_path / "out")


@pytest.mark.parametrize("full_download", [True, False])
def test_a_file_on_the_hub_is_named_with_its_repository(
    api: HfApi, runs: list[Path], full_download: bool, tmp_path: Path
) -> None:
    names = [f"org/{run.name}-{full_download}" for run in runs]
    for name, run in zip(names, runs, strict=True):
        api.create_repo(name)
        api.upload_file(path_or_fileobj=run / "latest.pth", path_in_repo="latest.pth", repo_id=name)
    label = rf"{names[1]}@[0-9a-f]{{7}}"
    with pytest.raises(CheckpointError, match=rf"^{label}: latest\.pth: a truncated or damaged torch file"):
        merge(names, output=tmp_path / "out", full_download=full_download)
    with pytest.raises(CheckpointError, match=rf"^{label}:latest\.pth: a truncated or damaged torch file"):
        merge([names[0], f"{names[1]}:latest.pth"], output=tmp_path / "out", full_download=full_download)
