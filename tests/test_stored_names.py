"""`--format safetensors`: the names in the anchor's file, so that whatever loads the anchor loads the merge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from calls import merge
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from tiny import NAMES, segformer
from torch import nn
from transformers import AutoModelForSemanticSegmentation

from hf_lwmm import ImageSource

State = Mapping[str, torch.Tensor]


class Wrapped(nn.Module, PyTorchModelHubMixin):
    """A network of a user's own around another."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


@pytest.fixture(scope="module")
def mixins(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mixins")
    for seed in (1, 2):
        torch.manual_seed(seed)
        Wrapped(width=5).save_pretrained(folder / str(seed))
    return [folder / "1", folder / "2"]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return load_file(segformer(tmp_path_factory.mktemp("plain") / "model", 1) / "model.safetensors")


def under(prefix: str, state: State) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in state.items()}


def written(models: list[Path], folder: Path, **options: object) -> tuple[State, tuple[str, ...]]:
    result = merge(models, method="isotropic", output=folder, format="safetensors", **options)
    return load_file(folder / "model.safetensors"), result.notes


def test_a_class_of_the_users_own_loads_the_merge_of_its_models(mixins: list[Path], tmp_path: Path) -> None:
    result = merge(mixins, method="isotropic", output=tmp_path / "out")
    assert 'load_file("out/model.safetensors")  # names as in the anchor\'s file' in result.card
    one, two = (Wrapped.from_pretrained(path).state_dict() for path in mixins)
    merged = Wrapped.from_pretrained(tmp_path / "out", strict=True).state_dict()
    for name, tensor in merged.items():
        assert torch.allclose(tensor.double(), (one[name].double() + two[name].double()) / 2), name


def test_a_merge_merges_again(mixins: list[Path], tmp_path: Path) -> None:
    merge(mixins, output=tmp_path / "once")
    state, notes = written([tmp_path / "once", mixins[1]], tmp_path / "twice")
    assert set(state) == set(load_file(mixins[0] / "model.safetensors"))
    assert any("named as in the file of once (model." in note for note in notes)


@pytest.mark.parametrize("prefix", ["module.", "net._orig_mod.", "module.model."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_wrappers_are_put_back(prefix: str, suffix: str, state: State, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        save_file(under(prefix, state), file) if suffix == ".safetensors" else torch.save(under(prefix, state), file)
    found, _ = written(files, tmp_path / "out")
    assert set(found) == set(under(prefix, state))


def test_each_tensor_gets_its_own_name_back(state: State, tmp_path: Path) -> None:
    stored = {**under("net.", state), "projector.weight": torch.ones(2, 2)}
    for name in "ab":
        save_file(stored, tmp_path / f"{name}.safetensors")
    found, _ = written([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "out")
    assert set(found) == set(stored)


def test_the_copy_that_was_taken_keeps_its_place(state: State, tmp_path: Path) -> None:
    for name in "ab":
        save_file({**under("model.", state), **under("ema_model.", state)}, tmp_path / f"{name}.safetensors")
    models = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    assert set(written(models, tmp_path / "one")[0]) == set(under("model.", state))
    assert set(written(models, tmp_path / "two", branch="teacher")[0]) == set(under("ema_model.", state))


def test_averages_of_mmcv_get_the_names_of_their_network(state: State, tmp_path: Path) -> None:
    flat = {f"ema_{name.replace('.', '_')}": tensor.clone() for name, tensor in state.items()}
    for name in "ab":
        save_file({**state, **flat}, tmp_path / f"{name}.safetensors")
    models = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    found, notes = written(models, tmp_path / "out", branch="teacher")
    assert set(found) == set(state) and any("not as in the file" in note for note in notes)


@pytest.mark.parametrize("entry", [{"model_type": "segformer"}, {"architectures": ["SegformerModel"]}])
def test_transformers_gets_no_wrapper_that_no_class_has(entry: dict[str, object], state: State, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        save_file(under("module.", state), tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps(entry))
    found, notes = written([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert set(found) == set(state)
    assert any("as transformers names them" in note for note in notes)


@pytest.mark.parametrize(("prefix", "branch"), [("net.", "student"), ("ema_model.", "teacher"), ("first.", "first")])
def test_a_merge_under_wrapped_names_is_run_as_any_other(
    prefix: str, branch: str, state: State, data: Path, tmp_path: Path
) -> None:
    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    beside = {"ema_model.": "model.", "first.": "second."}.get(prefix)
    save_file(dict(state), tmp_path / "plain.safetensors")
    save_file({**under(prefix, state), **(under(beside, other) if beside else {})}, tmp_path / "wrapped.safetensors")
    found = []
    for name, chosen in (("plain", "student"), ("wrapped", branch)):
        models = [tmp_path / f"{name}.safetensors"] * 2
        images = {"eval_images": ImageSource(data), "bn_images": ImageSource(data, split="validation", limit=2)}
        output = tmp_path / f"{name} out"
        labels = (",".join(NAMES),)
        result = merge(
            models,
            output=output,
            branch=chosen,
            labels=labels,
            bn_stats="recalibrate",
            format="safetensors",
            **images,
        )
        assert result.evaluation is not None
        found.append((load_file(output / "model.safetensors"), [each.mean for each in result.evaluation.models]))
    (plain, scores), (wrapped, same) = found
    assert scores == same and set(wrapped) == set(under(prefix, plain))
    assert all(torch.equal(wrapped[prefix + name], tensor) for name, tensor in plain.items())
    assert any(not torch.equal(plain[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("prefix", "copy"),
    [("model.", ""), ("model.", "model_ema."), ("net.", ""), ("backbone.", ""), ("lit.module.model.", "")],
)
def test_the_cards_example_loads_the_merge_of_wrapped_networks(
    prefix: str, copy: str, state: State, tmp_path: Path
) -> None:
    models = [segformer(tmp_path / name, seed) for seed, name in enumerate("ab")]
    stored = under(prefix, load_file(models[0] / "model.safetensors"))
    save_file({**(under(copy, state) if copy else {}), **stored}, models[0] / "model.safetensors", {"format": "pt"})
    result = merge(models, output=tmp_path / "out")
    assert "AutoModelForSemanticSegmentation" in result.card
    assert any("as transformers names them" in note for note in result.notes)
    _, loading = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading


def test_a_class_around_a_network_of_transformers_keeps_its_names(state: State, tmp_path: Path) -> None:
    """What a config.json names may be somebody's own class, by its name or by the code that it brings."""
    for name, entries in (("own", {"architectures": ["Mine"]}), ("code", {"auto_map": {"AutoModel": "mine.Mine"}})):
        models = [segformer(tmp_path / name / each, seed) for seed, each in enumerate("ab")]
        for model in models:
            save_file(under("model.", state), model / "model.safetensors")
            config = json.loads((model / "config.json").read_text())
            (model / "config.json").write_text(json.dumps({**config, **entries}))
        assert set(written(models, tmp_path / name / "out")[0]) == set(under("model.", state))
