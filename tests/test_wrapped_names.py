"""Wrappers around names, copies side by side and several networks in one file, told by names alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import NAMES, manifest

from hf_lwmm.checkpoints.hosted import Hosted, hosted_by
from hf_lwmm.checkpoints.unwrapping import unwrap
from hf_lwmm.errors import CheckpointError

WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "segmentor.", "student.", "lit_module.")


def names_of(system: str) -> list[str]:
    return [name for name, _, _ in manifest(system)]


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
