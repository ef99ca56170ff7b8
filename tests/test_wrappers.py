"""Wrapped names, copies side by side and several networks in one file, in torch and safetensors files alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import lwmm, merge
from safetensors.torch import load_file, save_file
from tiny import segformer

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.errors import CheckpointError
from hf_lwmm.hub import parse_ref

pytestmark = pytest.mark.usefixtures("without_plots")

State = dict[str, torch.Tensor]
Save = Callable[[State, Path], Path]


def opened(path: Path, branch: str | None = "student") -> Checkpoint:
    return open_checkpoint(hub.resolve(parse_ref(path)), branch=branch)


def values(checkpoint: Checkpoint) -> dict[str, bytes]:
    found = {}
    for name, info in checkpoint.tensors.items():
        raw = np.empty(info.nbytes, np.uint8)
        checkpoint.read_elements(name, 0, raw)
        found[name] = raw.tobytes()
    return found


def raw(state: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def under(prefix: str, state: Mapping[str, torch.Tensor], add: float = 0) -> State:
    return {
        prefix + name: tensor + add if tensor.is_floating_point() else tensor.clone() for name, tensor in state.items()
    }


def as_torch(state: State, path: Path) -> Path:
    torch.save({"state_dict": state, "epoch": 1}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_safetensors(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


BOTH = pytest.mark.parametrize("save", [as_torch, as_safetensors], ids=["torch", "safetensors"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("wrappers") / "plain", 1)


@pytest.fixture(scope="module")
def state(plain: Path) -> State:
    return load_file(plain / "model.safetensors")


@BOTH
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "net.", "model._orig_mod.module.", "segmentor."])
def test_wrapped_files_merge_as_plain_ones_do(
    save: Save, prefix: str, plain: Path, state: State, tmp_path: Path
) -> None:
    other = under("", state, 0.5)
    wrapped, bare = save(under(prefix, other), tmp_path / "wrapped"), save(other, tmp_path / "bare")
    for models in ([wrapped, plain], [plain, wrapped]):
        names: dict[str, Any] = {"format": "safetensors", "overwrite": True}  # those in the anchor's file
        result = merge(models, output=tmp_path / "a", **names)
        assert result.plan.alignment.shared_parameters == result.plan.alignment.anchor_parameters
        merge([bare if model == wrapped else model for model in models], output=tmp_path / "b", **names)
        first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
        put_back = prefix if models[0] == wrapped else ""
        assert raw(first) == raw(under(put_back, second))


@BOTH
def test_copies_in_a_file_are_read_by_their_stored_names(save: Save, state: State, tmp_path: Path) -> None:
    copies = {**under("model.", state), **under("ema_model.", state, 1), **under("imnet_model.", state, 2)}
    path = save(copies, tmp_path / "uda")
    assert values(opened(path)) == raw(state)
    assert values(opened(path, "teacher")) == raw(under("", state, 1))
    assert values(opened(path, "imnet_model")) == raw(under("", state, 2))
    assert values(opened(path, None)) == raw(copies)
    assert hf_lwmm.inspect(path, branch="teacher").layout == "mit/transformers + segformer/transformers"


def test_a_teacher_merges_into_the_copy_of_the_anchors_file(plain: Path, state: State, tmp_path: Path) -> None:
    content = {"state_dict": {**under("module.model.", state), **under("module.ema_model.", state, 1)}, "epoch": 3}
    for name in ("a", "b"):
        torch.save(content, tmp_path / f"{name}.pth")
    merge([tmp_path / "a.pth", tmp_path / "b.pth"], branch="teacher", format="torch", output=tmp_path / "out")
    written = torch.load(tmp_path / "out" / "a.pth")
    assert raw(written["state_dict"]) == raw(content["state_dict"]) and written["epoch"] == 3
    other = as_torch(under("net.", state, 1), tmp_path / "c")
    merge([other, plain], method="isotropic", format="torch", output=tmp_path / "again")
    written = torch.load(tmp_path / "again" / "c.pth")["state_dict"]
    assert list(written) == list(under("net.", state))
    assert torch.allclose(written["net.decode_head.classifier.bias"], state["decode_head.classifier.bias"] + 0.5)


def test_shards_are_unwrapped_as_one_model(state: State, tmp_path: Path) -> None:
    import json

    names = sorted(state)
    parts = [under("net.", {name: state[name] for name in names[i::2]}) for i in range(2)]
    parts[1]["criterion.weight"] = torch.ones(2)
    index = {}
    for i, part in enumerate(parts):
        save_file(part, tmp_path / f"model-{i}.safetensors")
        index |= dict.fromkeys(part, f"model-{i}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert values(opened(tmp_path)) == raw(state)


def test_a_part_under_a_prefix_of_its_own_is_warned_of(plain: Path, state: State, tmp_path: Path) -> None:
    head = {"decoder.fuse.weight": torch.ones(4, 4), "decoder.fuse.bias": torch.ones(4), "out.weight": torch.ones(2, 4)}
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("segformer")}
    save_file({**backbone, **head}, tmp_path / "a.safetensors")
    save_file({**backbone, **under("extra.", head)}, tmp_path / "b.safetensors")
    for models in (["a", "b"], ["b", "a"]):
        result = merge([tmp_path / f"{m}.safetensors" for m in models], output=tmp_path / "out", overwrite=True)
        [warning] = [each for each in result.warnings if "not shared only because" in each]
        assert "3 tensors" in warning and "b.safetensors has 'extra.' before" in warning
    result = merge([tmp_path / "a.safetensors", plain], output=tmp_path / "out", overwrite=True)
    assert not any("not shared only because" in each for each in result.warnings)


def test_heads_are_found_where_only_they_are_wrapped(plain: Path, state: State, tmp_path: Path) -> None:
    parts = {
        ("backbone." + name.removeprefix("segformer.") if name.startswith("segformer") else "head." + name): tensor
        for name, tensor in state.items()
    }
    save_file(parts, tmp_path / "a.safetensors")
    result = merge([plain, tmp_path / "a.safetensors"], output=tmp_path / "out")
    assert result.plan.alignment.shared_parameters == result.plan.alignment.anchor_parameters


@pytest.mark.parametrize("second", ["module.", "teacher2.", "models.1."])
@pytest.mark.parametrize("config", [True, False])
def test_two_networks_are_asked_about_beside_a_configuration_too(
    second: str, config: bool, plain: Path, state: State, tmp_path: Path
) -> None:
    (tmp_path / "two").mkdir()
    save_file({**state, **under(second, state, 1)}, tmp_path / "two" / "model.safetensors")
    if config:
        shutil.copy(plain / "config.json", tmp_path / "two")
    with pytest.raises(CheckpointError, match=rf"two: holds several networks .*no prefix.*{second[:-1]}"):
        merge([tmp_path / "two", plain], output=tmp_path / "out")
    assert values(opened(tmp_path / "two", second[:-1])) == raw(under("", state, 1))


def test_the_command_line_takes_a_prefix(state: State, tmp_path: Path) -> None:
    save_file({**under("first.", state), **under("second.", state, 1)}, tmp_path / "two.safetensors")
    asked = lwmm("inspect", tmp_path / "two.safetensors")
    assert asked.exit_code == 1 and "first.*, second.*" in str(asked.exception)
    target = tmp_path / "one.safetensors"
    done = lwmm("convert", tmp_path / "two.safetensors", target, "--to", "transformers", "--branch", "second")
    assert done.exit_code == 0 and values(opened(target)) == raw(under("", state, 1))


def test_a_network_of_transformers_loads_from_wrapped_names(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    network: Any = ResNetForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    ViTImageProcessor().save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    save_file(under("_orig_mod.", stored), tmp_path / "model.safetensors", {"format": "pt"})
    loaded: Any = hf_lwmm.load(tmp_path).model
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(pixels).logits, network(pixels).logits)


@BOTH
def test_a_bare_backbone_merges_and_is_said_to_have_no_head(
    save: Save, plain: Path, state: State, tmp_path: Path
) -> None:
    backbone = {n.removeprefix("segformer."): t for n, t in under("", state, 1).items() if n.startswith("segformer")}
    path = save({**backbone, "head.weight": torch.zeros(5, 32)}, tmp_path / "bare")
    result = merge([plain, path], output=tmp_path / "out")
    assert len(result.plan.alignment.shared) == len(backbone)
    for call in (lambda: hf_lwmm.load(path), lambda: hf_lwmm.load(save(backbone, tmp_path / "bare"))):
        with pytest.raises(hf_lwmm.HfLwmmError, match=r"bare\.\w+: has no head that is known, only a backbone \(MiT"):
            call()
