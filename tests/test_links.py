"""Links in a model's folder: those that lead out of it are refused, those of the Hub's cache are followed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import calls
import pytest
from conftest import Run
from huggingface_hub import HfApi, snapshot_download

import hf_lwmm
from hf_lwmm.errors import CheckpointError
from hf_lwmm.localhub import LocalHub

pytestmark = pytest.mark.usefixtures("without_plots")

SECRET = "hf_SECRET_TOKEN_OF_THE_USER"


@pytest.fixture
def copies(models: list[Path], tmp_path: Path) -> list[Path]:
    """Two models in folders that can be changed, the first of which has code of its own."""
    folders = [Path(shutil.copytree(model, tmp_path / model.name)) for model in models[:2]]
    config = json.loads((folders[0] / "config.json").read_text())
    (folders[0] / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    return folders


def lead_out(path: Path, outside: Path) -> None:
    outside.write_bytes(path.read_bytes() if path.exists() else SECRET.encode())
    path.unlink(missing_ok=True)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "helper.py", "model.safetensors", "README.md"]
)
def test_a_file_that_leads_out_of_the_folder_is_named_and_not_read(
    name: str, copies: list[Path], tmp_path: Path, run: Run
) -> None:
    lead_out(copies[0] / name, tmp_path / "token")
    code, out, err = run("merge", *copies, "--output", tmp_path / "out")
    assert code == 1 and f"its file '{name}' is a link that leads out of the folder" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists() and SECRET not in out + err


def test_a_chain_of_links_and_a_linked_folder_lead_out_too(copies: list[Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    weights = copies[0] / "model.safetensors"
    shutil.move(weights, tmp_path / "elsewhere" / "real.safetensors")
    (copies[0] / "inner").symlink_to(tmp_path / "elsewhere")
    (copies[0] / "second.safetensors").symlink_to("inner/real.safetensors")
    weights.symlink_to("second.safetensors")
    with pytest.raises(CheckpointError, match=r"'model\.safetensors' is a link that leads out"):
        hf_lwmm.inspect(copies[0])


def test_converting_follows_no_link_of_the_image_processor(copies: list[Path], tmp_path: Path, run: Run) -> None:
    (tmp_path / "token").write_text('{"image_processor_type": "SegformerImageProcessor", "secret": "' + SECRET + '"}')
    (copies[1] / "preprocessor_config.json").symlink_to(tmp_path / "token")
    code, _, err = run("convert", copies[1], tmp_path / "out")
    assert code == 1 and "'preprocessor_config.json' is a link" in err and not (tmp_path / "out").exists()


def test_nothing_outside_a_folder_is_pushed_with_it(
    hub: LocalHub, api: HfApi, copies: list[Path], tmp_path: Path
) -> None:
    calls.merge(copies, output=tmp_path / "out")
    lead_out(tmp_path / "out" / "notes.txt", tmp_path / "token")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        hf_lwmm.push(tmp_path / "out", "org/links-pushed")
    assert not api.repo_exists("org/links-pushed") or "notes.txt" not in api.list_repo_files("org/links-pushed")


def test_links_inside_the_folder_and_to_the_folder_are_followed(copies: list[Path], tmp_path: Path) -> None:
    (copies[0] / "model.safetensors").rename(copies[0] / "real.bytes")
    (copies[0] / "model.safetensors").symlink_to("real.bytes")
    (tmp_path / "alias").symlink_to(copies[0])
    assert hf_lwmm.inspect(tmp_path / "alias").parameters == hf_lwmm.inspect(copies[1]).parameters


def test_a_snapshot_of_the_hubs_cache_is_a_local_model(
    hub: LocalHub, api: HfApi, models: list[Path], tmp_path: Path
) -> None:
    api.create_repo("org/links-snapshot", exist_ok=True)
    api.upload_folder(folder_path=models[0], repo_id="org/links-snapshot")
    cache = tmp_path / ".cache" / "hub"  # as in a home folder
    snapshot = Path(snapshot_download("org/links-snapshot", cache_dir=cache))
    assert (snapshot / "model.safetensors").is_symlink()
    result = calls.merge([snapshot, models[1]], output=tmp_path / "out")
    assert result.recipe.output == calls.merge(models[:2], output=tmp_path / "same").recipe.output
    lead_out(snapshot / "config.json", tmp_path / "token")
    with pytest.raises(CheckpointError, match="leads out"):
        hf_lwmm.inspect(snapshot)


@pytest.mark.parametrize("name", ["a pipe", "a folder", "nothing", "a device"])
def test_what_is_no_file_is_an_error_of_one_line(name: str, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "model.safetensors"
    match name:
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a device":
            path = Path("/dev/zero")
    for given in (path, tmp_path):
        code, _, err = run("inspect", given)
        assert code == 1 and err.startswith("Error: ") and err.count("\n") == 1


def test_a_file_that_may_not_be_read_or_vanishes_is_named(
    models: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reason in (PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file or directory")):

        def refuse(path: object, *rest: object, error: OSError = reason, real: object = os.open) -> int:
            if str(path).endswith("model.safetensors"):
                raise error
            return real(path, *rest)  # type: ignore[operator,no-any-return]

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            code, _, err = run("inspect", models[0])
        assert code == 1 and f"model.safetensors: cannot be read: {reason.strerror}." in err and err.count("\n") == 1
