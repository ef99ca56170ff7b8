"""Wrappers around names, copies side by side and several networks in one file, in torch and safetensors files alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import lwmm, merge
from hypothesis import given
from hypothesis import strategies as st
from manifests import NAMES, manifest
from safetensors.torch import load_file, save_file
from tiny import segformer

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.checkpoints.hosted import Hosted, hosted_by
from hf_lwmm.checkpoints.unwrapping import unwrap
from hf_lwmm.errors import CheckpointError
from hf_lwmm.hub import parse_ref

pytestmark = pytest.mark.usefixtures("without_plots")

State = dict[str, torch.Tensor]
Save = Callable[[State, Path], Path]
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "segmentor.", "student.", "lit_module.")


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


def names_of(system: str) -> list[str]:
    return [name for name, _, _ in manifest(system)]


# names alone


@pytest.mark.parametrize("system", NAMES)
def test_the_names_of_a_code_base_stay_as_they_are(system: str) -> None:
    names = names_of(system)
    for lightning in (False, True):
        found = unwrap(names, "student", "x", lightning=lightning)
        assert found.names == {name: name for name in names} and not found.notes


@given(system=st.sampled_from(NAMES), wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=4))
def test_wrappers_go_in_any_order_and_number(system: str, wrappers: list[str]) -> None:
    names, prefix = names_of(system), "".join(wrappers)
    found = unwrap([prefix + name for name in names], "student", "x").names
    assert found == {name: prefix + name for name in names}


@given(wrappers=st.lists(st.sampled_from(WRAPPERS[:-1]), max_size=4))
def test_the_usual_wrappers_go_from_networks_that_nobody_knows(wrappers: list[str]) -> None:
    names, prefix = ["stem.conv.weight", "body.model.0.weight", "body.module.1.weight", "scale"], "".join(wrappers)
    assert unwrap([prefix + name for name in names], "student", "x").names == {n: prefix + n for n in names}


def test_other_prefixes_stay_where_nobody_knows_the_network() -> None:
    names = ["yolo.stem.weight", "yolo.body.weight"]
    assert set(unwrap(names, "student", "x").names) == set(names)


def test_nothing_is_taken_from_the_middle_or_from_some_names_only() -> None:
    names = ["a.module.w", "a._orig_mod.w", "module.b", "model.model.x", "c"]
    assert unwrap(names, "student", "x").names == {name: name for name in names}


def test_names_that_a_class_of_transformers_reads_lose_only_what_no_class_has() -> None:
    names = [f"model.{name}" for name in names_of("nvlabs_segformer_b0")]
    assert unwrap(names, "student", "x", hosted=Hosted()).names == {name: name for name in names}
    wrapped = [f"_orig_mod.module.{name}" for name in names]
    assert list(unwrap(wrapped, "student", "x", hosted=Hosted()).names) == names


@pytest.mark.parametrize(
    ("kind", "architecture", "names"),
    [
        ("detr", "DetrForObjectDetection", ["model.encoder.weight", "class_labels_classifier.weight"]),
        ("mask2former", "Mask2FormerForUniversalSegmentation", ["model.pixel.weight", "class_predictor.bias"]),
        ("dinov2", "Dinov2ForImageClassification", ["dinov2.layer.weight", "classifier.weight"]),
        ("data2vec-vision", "Data2VecVisionForSemanticSegmentation", ["data2vec_vision.w", "decode_head.w"]),
        ("segformer", "SegformerModel", None),
    ],
)
def test_wrappers_go_from_networks_of_transformers(kind: str, architecture: str, names: list[str] | None) -> None:
    if names is None:
        every = [n for n in names_of("transformers_segformer_b0_hub_legacy") if n.startswith("segformer.")]
        names = [name.removeprefix("segformer.") for name in every]
    hosted = hosted_by({"model_type": kind, "architectures": [architecture]})
    for prefix in ("", "model.", "net.", "lit_module.model.", "backbone.", "module.model.net."):
        found = unwrap([prefix + name for name in names], "student", "x", hosted=hosted).names
        assert found == {name: prefix + name for name in names}


@pytest.mark.parametrize(
    ("kind", "architecture", "names"),
    [
        ("llama", "LlamaForCausalLM", ["model.layers.0.weight", "model.norm.weight"]),  # of tied words
        ("timm_wrapper", "TimmWrapperForImageClassification", ["timm_model.stem.weight", "timm_model.head.weight"]),
        ("siglip_vision_model", "SiglipVisionModel", ["vision_model.encoder.w", "vision_model.head.w"]),
    ],
)
def test_names_that_a_class_of_transformers_has_stay(kind: str, architecture: str, names: list[str]) -> None:
    hosted = hosted_by({"model_type": kind, "architectures": [architecture]})
    assert list(unwrap(names, "student", "x", hosted=hosted).names) == names


def test_unwrapping_twice_is_unwrapping_once() -> None:
    names = [f"net.module.{name}" for name in names_of("daformer_mitb5")] + ["net.criterion.weight"]
    once = list(unwrap(names, "student", "x").names)
    assert list(unwrap(once, "student", "x").names) == once


def test_a_prefix_of_many_modules_is_bounded() -> None:
    names = [f"{'module.' * 2000}{'a.' * 2000}{i}" for i in range(200)]
    assert list(unwrap(names, "student", "x").names) == [f"{'a.' * 2000}{i}" for i in range(200)]


NETWORK = names_of("nvlabs_segformer_b0")


def prefixed(prefix: str, names: Iterable[str] = NETWORK) -> list[str]:
    return [prefix + name for name in names]


COPIES: dict[str, tuple[list[str], Callable[[str], str], Callable[[str], str]]] = {
    "self-training": (
        [*prefixed("model."), *prefixed("ema_model."), *prefixed("imnet_model.", NETWORK[:99]), "project.weight"],
        "model.{}".format, "ema_model.{}".format,
    ),
    "distillation": (
        [*prefixed("teacher."), *prefixed("student."), "student_temp"], "student.{}".format, "teacher.{}".format
    ),
    "averaged": (
        [*prefixed("net."), *prefixed("ema_net.module."), "ema_net.n_averaged"],
        "net.{}".format, "ema_net.module.{}".format,
    ),
    "within a module": (
        prefixed("module.", [*prefixed("model.net."), *prefixed("model_ema.net.")]),
        "module.model.net.{}".format, "module.model_ema.net.{}".format,
    ),
    "beside plain names": ([*NETWORK, *prefixed("teacher.")], "{}".format, "teacher.{}".format),
    "buffers of mmcv": (
        [*NETWORK, *(f"ema_{name.replace('.', '_')}" for name in NETWORK)],
        "{}".format, lambda name: f"ema_{name.replace('.', '_')}",
    ),
    "without dots": (
        [*prefixed("model."), *(f"model_ema.{name.replace('.', '')}" for name in NETWORK), "model_ema.decay"],
        "model.{}".format, lambda name: f"model_ema.{name.replace('.', '')}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("copies", COPIES)
def test_student_and_average_are_told_apart_by_what_their_names_share(copies: str) -> None:
    names, student, teacher = COPIES[copies]
    found = unwrap(names, "student", "x")
    assert {n: s for n, s in found.names.items() if n in NETWORK} == {name: student(name) for name in NETWORK}
    assert "took the student" in found.notes[0] and "(--branch teacher)" in found.notes[0]
    found = unwrap(names, "teacher", "x")
    assert {n: s for n, s in found.names.items() if n in NETWORK} == {name: teacher(name) for name in NETWORK}
    assert "took the teacher" in found.notes[0] and "(--branch student)" in found.notes[0]


def test_the_counter_beside_an_average_is_no_tensor_of_the_network() -> None:
    names, _, _ = COPIES["averaged"]
    assert list(unwrap(names, "teacher", "x").names) == NETWORK
    assert list(unwrap(["steps", *prefixed("module.")], "student", "x").names) == NETWORK


def test_an_average_alone_is_taken_and_said_to_be_one() -> None:
    found = unwrap([*prefixed("ema_model."), *prefixed("imnet_model.")], "student", "x")
    assert list(found.names) == NETWORK and "took the teacher (ema_model.*)" in found.notes[0]
    assert "left out imnet_model.*" in found.notes[0]


def test_a_module_that_is_only_called_like_an_average_is_no_copy() -> None:
    names = ["stem.weight", "ema.conv.weight", "ema.norm.bias", "ema_scale", "head.weight"]
    assert unwrap(names, "student", "x").names == {name: name for name in names}
    with pytest.raises(CheckpointError, match="x: has no teacher"):
        unwrap(names, "teacher", "x")


def test_several_networks_are_asked_about_and_can_be_chosen() -> None:
    names = [*prefixed("net_a."), *prefixed("net_b.net.")]
    with pytest.raises(CheckpointError, match=r"x: holds several networks .*net_a\.\*, net_b\.net\.\*.*--branch net_a"):
        unwrap(names, "student", "x")
    assert unwrap(names, "net_a", "x").names == {name: f"net_a.{name}" for name in NETWORK}
    assert unwrap(names, "net_b.", "x").names == {name: f"net_b.net.{name}" for name in NETWORK}
    assert unwrap(names, "all", "x").names.keys() >= set(prefixed("net_b.net."))
    with pytest.raises(CheckpointError, match=r"x: has no branch net_c; its names begin with net_a, net_b"):
        unwrap(names, "net_c", "x")
    with pytest.raises(CheckpointError, match=r"Did you mean .?teacher"):
        unwrap(names, "techer", "x")


def test_losses_go_with_lightning_or_a_wrapper_and_other_tensors_stay() -> None:
    losses = ["criterion.weight", "val_iou.confmat", "loss_fn.weight"]
    found = unwrap([*NETWORK, *losses], "student", "x", lightning=True)
    assert list(found.names) == NETWORK and "criterion, loss_fn, val_iou" in found.notes[0]
    assert list(unwrap([*prefixed("net."), *losses], "student", "x").names) == NETWORK
    assert list(unwrap([*NETWORK, *losses], "student", "x").names) == [*NETWORK, *losses]
    assert list(unwrap([*prefixed("net."), "projector.weight"], "student", "x").names) == [*NETWORK, "projector.weight"]


@pytest.mark.parametrize("head", ["iou_head", "f1", "metric_head", "iou_prediction_head", "dice"])
def test_a_head_that_is_called_like_a_metric_is_no_metric(head: str) -> None:
    layers = [f"{head}.layers.0.weight", f"{head}.layers.0.bias"]
    for names in ([*NETWORK, *layers], [*NETWORK, f"{head}.weight"]):
        found = unwrap(names, "student", "x", lightning=True)
        assert list(found.names) == names and not found.notes
    assert list(unwrap([*prefixed("net."), *layers], "student", "x").names) == [*NETWORK, *layers]


def test_what_metrics_have_counted_goes() -> None:
    states = ["val_iou.confmat", "f1.tp", "f1.fp", "acc.correct", "mean_acc.mean_value", "mean_acc.weight", "iou",
              "metrics.lpips.net.weight"]  # fmt: skip
    for names in ([*NETWORK, *states], [*prefixed("net."), *states]):
        assert list(unwrap(names, "student", "x", lightning=True).names) == NETWORK


# files


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
