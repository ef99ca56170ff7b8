"""The index of a sharded model decides where each tensor is; what contradicts it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from huggingface_hub import HfApi
from safetensors.numpy import load_file, save_file
from tiny import tensors

import hf_lwmm
from hf_lwmm import CheckpointError

INDEX = "model.safetensors.index.json"
ONE, TWO = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
HEAD = "decode_head.classifier.bias"
Arrays = dict[str, np.ndarray]


def nothing(one: Arrays, two: Arrays, index: dict[str, str]) -> None:
    """Leave the shards and their index as they are."""


def sharded(
    folder: Path, model: Path, change: Callable[[Arrays, Arrays, dict[str, str]], object] = nothing, lacking: str = ""
) -> Path:
    """A model in two shards, which `change` may change with their index; and without one of its files."""
    arrays = tensors(model)
    parts: list[Arrays] = [{}, {}]
    for number, (name, array) in enumerate(sorted(arrays.items())):
        parts[number % 2][name] = array
    index = {name: file for file, part in zip((ONE, TWO), parts, strict=True) for name in part}
    change(*parts, index)
    folder.mkdir()
    for file, part in zip((ONE, TWO), parts, strict=True):
        save_file(part, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_bytes((model / "config.json").read_bytes())
    if lacking:
        (folder / lacking).unlink()
    return folder


def overlaid(folder: Path, model: Path) -> Path:
    """A sharded model in which a third file replaces a tensor that is in one of the shards."""
    sharded(folder, model, lambda one, two, index: index.update({HEAD: "new.safetensors"}))
    save_file({HEAD: np.full(3, 7, np.float32)}, folder / "new.safetensors")
    return folder


def test_an_overlay_is_what_the_index_says(models: list[Path], tmp_path: Path) -> None:
    folder = overlaid(tmp_path / "overlay", models[0])
    info = hf_lwmm.inspect(folder)
    assert info.files == (ONE, TWO, "new.safetensors")
    [note] = info.notes
    assert f"left out '{HEAD}' of model-0000" in note and f"{INDEX} takes it from new.safetensors" in note
    expected = {**tensors(models[0]), HEAD: np.full(3, 7, np.float32)}
    found = hf_lwmm.load(folder).model.state_dict()
    assert np.array_equal(found[HEAD], expected[HEAD])
    (tmp_path / "plain").mkdir()
    save_file(expected, tmp_path / "plain" / "model.safetensors")
    for anchor, output in ((folder, "out"), (tmp_path / "plain", "expected")):
        hf_lwmm.merge([anchor, models[1]], output=tmp_path / output)
    merged, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "expected"))
    assert merged.keys() == wanted.keys() and all(np.array_equal(merged[name], wanted[name]) for name in wanted)


def test_an_overlay_is_read_from_the_hub(models: list[Path], tmp_path: Path, api: HfApi) -> None:
    repo = api.create_repo("local/overlay").repo_id
    api.upload_folder(repo_id=repo, folder_path=overlaid(tmp_path / "overlay", models[0]))
    assert np.array_equal(hf_lwmm.load(repo).model.state_dict()[HEAD], np.full(3, 7, np.float32))


def moved(one: Arrays, two: Arrays, index: dict[str, str]) -> None:
    index[min(one)] = TWO


def ghost(one: Arrays, two: Arrays, index: dict[str, str]) -> None:
    index["nowhere.weight"] = ONE


def test_a_tensor_that_is_not_where_the_index_says_is_named(models: list[Path], tmp_path: Path, run: Run) -> None:
    first = min(tensors(models[0]))
    for change, name, fault in (
        (moved, "moved", f"says that '{first}' is in {TWO}, which lacks it; it is in {ONE}."),
        (ghost, "ghost", f"says that 'nowhere.weight' is in {ONE}, which lacks it."),
    ):
        folder = sharded(tmp_path / name, models[0], change)
        for command in (("inspect", folder), ("plan", models[1], folder), ("predict", folder, models[0])):
            code, _, err = run(*command)
            if command[0] != "predict":
                assert code == 1 and err.startswith(f"Error: {name}: {INDEX} {fault}"), err
        with pytest.raises(CheckpointError, match="which lacks it"):
            hf_lwmm.load(folder)


def test_a_tensor_that_the_index_does_not_list_is_left_out_with_a_note(models: list[Path], tmp_path: Path) -> None:
    def unlisted(one: Arrays, two: Arrays, index: dict[str, str]) -> None:
        one |= {"extra.a": np.ones(1, np.float32), "extra.b": np.ones(1, np.float32)}

    info = hf_lwmm.inspect(sharded(tmp_path / "model", models[0], unlisted))
    assert info.tensors == len(tensors(models[0]))
    assert info.notes == (f"model: left out 'extra.a' and 1 more of {ONE}: {INDEX} does not list it",)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[" * 100_000, "more than 100 levels"),
        (b"\xff", "is not UTF-8"),
        (b'{"weight_map": {"a": "x", "a": "y"}}', "'a' occurs twice"),
        (b"{}", "weight_map: must hold names and values, not None"),
        (b'{"weight_map": ["a"]}', "weight_map: must hold names and values"),
        (b'{"weight_map": {"a": 1}}', "the file of 'a' is 1, not a text"),
        (b'{"weight_map": {}}', "lists no tensors"),
        (b'{"weight_map": {"a": "config.json"}}', "a file of weights that the repository does not have"),
        (b'{"weight_map": {"a": "../../x.safetensors"}}', "points outside the repository"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(
    content: bytes, fault: str, models: list[Path], tmp_path: Path, run: Run
) -> None:
    folder = sharded(tmp_path / "model", models[0])
    (folder / INDEX).write_bytes(content)
    said = {run(*command) for command in (("inspect", folder), ("merge", folder, models[0], "--output", "out"))}
    [(code, _, err)] = said
    assert code == 1 and err.startswith("Error: model") and INDEX in err and fault in err and err.count("\n") == 1


def test_shards_without_their_index_say_what_to_do(models: list[Path], tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model", models[0], lacking=INDEX)
    with pytest.raises(CheckpointError, match=rf"without {INDEX}\. Download it, or name them all: model:{ONE}\+{TWO}"):
        hf_lwmm.inspect(folder)
    every = hf_lwmm.inspect(f"{folder}:{ONE}+{TWO}")
    assert every.notes == () and every.tensors == len(tensors(models[0])) and every.classes == ("road", "sky", "car")
    for ref, remedy in (
        (f"{folder}:{ONE}", f"Name them all: model:{ONE}+{TWO}"),
        (folder / ONE, "Download the others"),
    ):
        [note] = (each for each in hf_lwmm.inspect(ref).notes if "shard" in each)
        assert f"{ONE} is one of 2 shards of a model, and the others are not read. {remedy}" in note
    (folder / TWO).unlink()
    with pytest.raises(
        CheckpointError, match=rf"{ONE} is one of 2 shards.*Download the others, such as {TWO}, and {INDEX}"
    ):
        hf_lwmm.inspect(folder)


def test_a_shard_that_is_missing_is_named(models: list[Path], tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model", models[0], lacking=TWO)
    with pytest.raises(CheckpointError, match=rf"{INDEX} lists '{TWO}' for .*Download all shards"):
        hf_lwmm.inspect(folder)


def test_the_whole_file_comes_before_an_index(models: list[Path], tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model", models[0])
    save_file(tensors(models[1]), folder / "model.safetensors")
    info = hf_lwmm.inspect(folder)
    assert info.files == ("model.safetensors",) and info.notes == (f"model: took model.safetensors, not {INDEX}",)
    assert hf_lwmm.inspect(f"{folder}:{INDEX}").files == (ONE, TWO)


def test_the_only_folder_with_weights_is_taken_shards_and_all(models: list[Path], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    sharded(repo / "best", models[0])
    info = hf_lwmm.inspect(repo)
    assert info.files == (f"best/{ONE}", f"best/{TWO}") and info.classes == ("road", "sky", "car")
    assert info.notes == (f"repo: took best/{ONE}, best/{TWO}",)


def test_shards_of_torch_keep_what_the_index_does_not_take(models: list[Path], tmp_path: Path) -> None:
    state = {name: torch.tensor(array) for name, array in tensors(models[0]).items()}
    names = sorted(state)
    (tmp_path / "model").mkdir()
    old = {**{name: state[name] for name in names[::2]}, "old.weight": torch.ones(2)}
    files = {
        "pytorch_model-00001-of-00002.bin": old,
        "pytorch_model-00002-of-00002.bin": {n: state[n] for n in names[1::2]},
    }
    index = {f"module.{name}": file for file, part in files.items() for name in part if name in state}
    for file, part in files.items():
        torch.save({f"module.{name}": tensor for name, tensor in part.items()}, tmp_path / "model" / file)
    (tmp_path / "model" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    info = hf_lwmm.inspect(tmp_path / "model")
    assert info.tensors == len(state) and any("left out 'module.old.weight'" in note for note in info.notes)
    writing = hf_lwmm.WriteOptions(format="torch")
    hf_lwmm.merge([tmp_path / "model", models[0]], output=tmp_path / "out", writing=writing)
    again = torch.load(tmp_path / "out" / "pytorch_model-00001-of-00002.bin")
    assert torch.equal(again["module.old.weight"], torch.ones(2))
    assert all(torch.equal(again[f"module.{name}"], state[name]) for name in names[::2])
