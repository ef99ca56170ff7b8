"""Weights in a folder of a repository, and what belongs to them there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from beside import PROCESSOR, PROCESSORS, edited, with_file
from conftest import Run
from huggingface_hub import HfApi
from tiny import segformer, tensors
from transformers import (
    ViTConfig,
    ViTForImageClassification,
)

import hf_lwmm


def test_what_belongs_to_weights_stands_in_their_folder(models: list[Path], tmp_path: Path, run: Run) -> None:
    repo = tmp_path / "repo"
    for step, model in ((500, models[0]), (1000, models[1])):
        name, content = PROCESSORS["a class"]
        with_file(repo / f"checkpoint-{step}", model, name, {**content, "size": step // 10})
    (repo / "config.json").write_text('{"model_type": "other", "id2label": {"0": "none"}}')
    for ref in (f"{repo}:checkpoint-500", f"{repo}:checkpoint-500/", f"{repo}:checkpoint-500/model.safetensors"):
        assert hf_lwmm.inspect(ref).files == ("checkpoint-500/model.safetensors",)
        loaded = hf_lwmm.load(ref)
        assert loaded.classes == ("road", "sky", "car") and loaded.image_processor.size["height"] == 50
    code, _, err = run("merge", f"{repo}:checkpoint-1000", f"{repo}:checkpoint-500", "--output", "out")
    assert code == 0 and "left out" not in err
    for name in ("config.json", PROCESSOR):
        assert (Path("out") / name).read_bytes() == (repo / "checkpoint-1000" / name).read_bytes()
    assert np.array_equal(*(tensors(each)["decode_head.classifier.bias"] for each in (Path("out"), models[1])))
    code, _, err = run("inspect", repo)
    assert code == 1 and "Say which: repo:checkpoint-1000/model.safetensors" in err
    code, _, err = run("inspect", f"{repo}:checkpoint-50")
    assert code == 1 and "has no file 'checkpoint-50'" in err


def test_a_config_that_stands_elsewhere_is_left_out_with_a_note(models: list[Path], tmp_path: Path) -> None:
    repo = with_file(tmp_path / "repo", models[0], "README.md", b"")
    (repo / "weights").mkdir()
    (repo / "model.safetensors").rename(repo / "weights" / "model.safetensors")
    info = hf_lwmm.inspect(repo)
    assert info.classes is None and info.notes == (
        "repo: took weights/model.safetensors",
        "repo: left out config.json, which does not stand beside the weights in weights",
    )


def test_code_beside_the_weights_travels_with_a_merge(models: list[Path], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    edited(repo / "run", models[0], auto_map={"AutoConfig": "own.OwnConfig"})
    (repo / "run" / "own.py").write_text("inside")
    (repo / "other.py").write_text("outside")
    done = hf_lwmm.merge([f"{repo}:run", models[1]], output=tmp_path / "out")
    assert (tmp_path / "out" / "own.py").read_text() == "inside" and not (tmp_path / "out" / "other.py").exists()
    assert any(note.endswith("never run here: own.py") for note in done.notes)


def test_a_folder_of_a_repository_is_merged_recorded_and_made_again(
    models: list[Path], tmp_path: Path, api: HfApi
) -> None:
    repo = api.create_repo("local/steps").repo_id
    for step, model in ((1, models[0]), (2, models[1])):
        folder = with_file(tmp_path / str(step), model, *PROCESSORS["an extractor"])
        api.upload_folder(repo_id=repo, folder_path=folder, path_in_repo=f"runs/step-{step}")
    refs = [f"{repo}:runs/step-{step}" for step in (1, 2)]
    hf_lwmm.merge(refs, output=tmp_path / "out")
    hf_lwmm.merge(models[:2], output=tmp_path / "expected")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "expected/model.safetensors").read_bytes()
    assert (tmp_path / "out" / PROCESSOR).read_bytes() == (tmp_path / "1" / PROCESSOR).read_bytes()
    assert hf_lwmm.load_recipe(tmp_path / "out/hf_lwmm.yaml").models[0].endswith(":runs/step-1")
    assert hf_lwmm.reproduce(tmp_path / "out").same
    assert hf_lwmm.load(refs[1]).reduce_labels


def test_a_network_of_transformers_is_loaded_from_its_folder(tmp_path: Path, api: HfApi) -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16,
                       patch_size=8, id2label={0: "cat", 1: "dog"})  # fmt: skip
    torch.manual_seed(0)
    network = ViTForImageClassification(config)
    network.save_pretrained(tmp_path / "vit" / "best")
    repo = api.create_repo("local/vit").repo_id
    (tmp_path / "vit" / "best" / PROCESSOR).write_text(json.dumps({"size": {"height": 16, "width": 16}}))
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "vit")
    for ref in (f"{tmp_path / 'vit'}:best", f"{repo}:best", f"{repo}:best/model.safetensors"):
        loaded = hf_lwmm.load(ref)
        assert loaded.classes == ("cat", "dog") and loaded.image_processor.size["height"] == 16
        assert torch.equal(loaded.model.state_dict()["classifier.weight"], network.state_dict()["classifier.weight"])
    (tmp_path / "vit" / "best" / PROCESSOR).unlink()
    with pytest.raises(hf_lwmm.CheckpointError, match=r"has no preprocessor_config\.json"):
        hf_lwmm.load(f"{tmp_path / 'vit'}:best")


def test_torch_files_of_a_folder_are_copied_with_what_belongs_to_them(models: list[Path], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    with_file(repo / "run", models[0], *PROCESSORS["a class"])
    (repo / "run" / "model.safetensors").unlink()
    torch.save({name: torch.tensor(value) for name, value in tensors(models[0]).items()}, repo / "run" / "last.pth")
    writing = hf_lwmm.WriteOptions(format="torch")
    hf_lwmm.merge([f"{repo}:run", models[1]], output=tmp_path / "out", writing=writing)
    assert sorted(path.name for path in (tmp_path / "out" / "run").iterdir()) == [
        "config.json", "last.pth", PROCESSOR
    ]  # fmt: skip
    assert hf_lwmm.load(tmp_path / "out").image_processor.size["height"] == 32


def test_a_file_by_itself_has_nothing_beside_it(tmp_path: Path) -> None:
    folder = segformer(tmp_path / "model", 1)
    (folder / "config.json").write_text("{")
    info = hf_lwmm.inspect(folder / "model.safetensors")
    assert info.classes is None
    (note,) = info.notes
    assert note.endswith(": left out the config.json beside it; to read it, too, name model/:model.safetensors")
    assert str(tmp_path) not in note
    segformer(tmp_path / "model", 1)
    assert hf_lwmm.inspect(f"{folder}/:model.safetensors").classes and not hf_lwmm.inspect(folder).notes
