"""Networks in the containers of training code: where they are, which copy is taken, and what else is beside them."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from manifests import manifest
from torch_files import bytes_of, floats, opened, ordered, storage, tensor, zipped

from hf_lwmm.errors import CheckpointError

NAMES = ("backbone.norm1.weight", "backbone.norm1.bias", "decode_head.conv_seg.weight")
STUDENT = {name: torch.full((3,), float(i)) for i, name in enumerate(NAMES)}
TEACHER = {name: value + 10 for name, value in STUDENT.items()}


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def found(content: Any, branch: str = "student") -> tuple[dict[str, float], str]:
    """The first value of each tensor, and all notes in one."""
    read = opened(saved(content), branch)
    values = {name: float(np.frombuffer(raw, np.float32)[0]) for name, raw in bytes_of(read).items()}
    return values, "\n".join(read.notes)


def plain(state: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value[0]) for name, value in state.items()}


def module(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


def lightning(state: Any, **more: Any) -> dict[str, Any]:
    return {"state_dict": state, "pytorch-lightning_version": "2.2.0", "callbacks": {}, "optimizer_states": [], **more}


BOTH: dict[str, Any] = {
    "timm": {"state_dict": STUDENT, "state_dict_ema": module(TEACHER), "arch": "x"},
    "DeiT": {"model": STUDENT, "model_ema": TEACHER, "epoch": 3},
    "RT-DETR": {"ema": {"module": TEACHER, "updates": 5}, "model": STUDENT},
    "ema_state_dict": {"state_dict": STUDENT, "ema_state_dict": module(TEACHER)},
    "mmengine, which swaps them": {
        "meta": {"mmengine_version": "0.10.4"},
        "state_dict": TEACHER,
        "ema_state_dict": {"steps": torch.tensor(3), **module(STUDENT)},
    },
    "student and teacher in an entry": {"state_dict": {"student": STUDENT, "teacher": TEACHER}},
    "an average in an entry": {"model": {"state_dict": module(STUDENT), "ema": module(TEACHER)}},
    "model and teacher in an entry": {"state_dict": {"model": STUDENT, "teacher": TEACHER}},
    "an entry with an average alone": {"model": {"ema": TEACHER}, "net": STUDENT},
    "swa_model": {"model": STUDENT, "swa_model": {**module(TEACHER), "n_averaged": torch.tensor(3)}},
    "averaged_model": {"model": STUDENT, "averaged_model": TEACHER},
    "model_avg": {"model": STUDENT, "model_avg": TEACHER},
    "shadow": {"module": STUDENT, "shadow": TEACHER},
    "an average beside a meter": {"avg": {"loss": torch.ones(1)}, "model": STUDENT, "swa": TEACHER},
    "BasicSR": {"params": STUDENT, "params_ema": TEACHER},
    "DINO": {"teacher": TEACHER, "student": module(STUDENT)},
    "shadow weights": {"model": STUDENT, "ema": {"decay": 0.99, "shadow": TEACHER}},
    "plain names beside an average": {**STUDENT, "ema": TEACHER},
    "Lightning's callback": lightning(
        {f"model.{name}": value for name, value in STUDENT.items()}, callbacks={"EMA": {"ema_state_dict": TEACHER}}
    ),
    "buffers": {"state_dict": {**STUDENT, **{f"ema_{n.replace('.', '_')}": value for n, value in TEACHER.items()}}},
}


@pytest.mark.parametrize("container", BOTH)
def test_student_and_average_are_found_and_named(container: str) -> None:
    values, notes = found(BOTH[container])
    assert values == plain(STUDENT) and "left out" in notes and "(--branch teacher)" in notes
    values, notes = found(BOTH[container], "teacher")
    assert values == plain(TEACHER) and "left out" in notes and "(--branch student)" in notes


def test_mmengine_is_said_to_swap_the_average_and_the_weights_in_training() -> None:
    for branch in ("student", "teacher"):
        assert "mmengine saves the average as state_dict" in found(BOTH["mmengine, which swaps them"], branch)[1]
        assert "mmengine" not in found(BOTH["ema_state_dict"], branch)[1]


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "net": ({"model": STUDENT, "net": TEACHER}, "left out the entry net (--branch net takes it)"),
    "best_model": ({"best_model": TEACHER, "model": STUDENT}, "left out the entry best_model (--branch best_model"),
    "model": ({"model": TEACHER, "student": STUDENT}, "left out the entry model (--branch model takes it)"),
    "of another kind": ({"model": STUDENT, "critic": {"a.w": torch.ones(1)}}, "left out the entry critic (--branch"),
    "in an entry": ({"state_dict": {"model": STUDENT, "net": TEACHER}}, "the entry net in the entry state_dict"),
    "swa": ({"model": STUDENT, "ema": STUDENT.copy(), "swa": TEACHER}, "left out the entry swa (--branch swa takes"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_networks_are_named(case: str) -> None:
    content, note = OTHERS[case]
    values, notes = found(content)
    assert values == plain(STUDENT) and note in notes
    if case in content:
        assert found(content, case)[0] == plain(TEACHER)


@pytest.mark.parametrize(
    "beside",
    [
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}},
        {"meter_avg": {"loss": torch.ones(1)}, "exp_avg": {name: torch.ones(3) for name in ("loss", "acc")}},
        {"queue": {"features": torch.ones(3)}, "rng_state": torch.ones(3), "epoch": 3},
        {"net": STUDENT},
    ],
    ids=["optimizer", "meters", "queue", "the same again"],
)
def test_what_is_no_other_network_is_not_called_one(beside: dict[str, Any]) -> None:
    values, notes = found({"model": STUDENT, **beside})
    assert values == plain(STUDENT) and "left out" not in notes
    with pytest.raises(CheckpointError, match="has no teacher"):
        found({"model": STUDENT, **beside}, "teacher")


@pytest.mark.parametrize("content", [{"state_dict_ema": module(TEACHER)}, {"ema": TEACHER, "model": None}])
def test_an_average_alone_is_taken(content: Any) -> None:
    for branch in ("student", "teacher"):
        values, notes = found(content, branch)
        assert values == plain(TEACHER) and "ema" in notes and "left out" not in notes


ALONE: dict[str, tuple[Any, str]] = {
    "deeper": ({"model": {"state_dict": STUDENT}, "epoch": 1}, "read the entry model"),
    "DeepSpeed": ({"module": STUDENT, "global_step": 4}, "read the entry module"),
    "weights": ({"weights": module(STUDENT)}, "read the entry weights"),
    "in a list": ([STUDENT], "the only element of a list"),
    "pairs": (tuple(STUDENT.items()), "a list of names and tensors"),
    "flat with a number as a name": ({**STUDENT, 1: torch.zeros(1)}, "left out what is no tensor under a text: 1"),
    "flat with counters": ({**STUDENT, "epoch": 3}, "left out what is no tensor: epoch"),
    "extra state": ({"state_dict": {**STUDENT, "fp8._extra_state": None}}, "no tensor: fp8._extra_state"),
    "bytes": ({"state_dict": {**STUDENT, "x._extra_state": io.BytesIO(b"x")}}, "no tensor: x._extra_state"),
    "numbers": ({"state_dict": {**STUDENT, **{f"n{i}": 0.5 for i in range(5)}}}, "n0, n1, n2 and 2 more"),
    "beside another state dict": ({**STUDENT, "state_dict": {"junk": torch.zeros(1)}}, "no tensor: state_dict"),
    "beside single tensors": ({"queue": torch.zeros(2), "model": STUDENT}, "read the entry model"),
}


@pytest.mark.parametrize("case", ALONE)
def test_a_network_is_found_wherever_it_is(case: str) -> None:
    content, note = ALONE[case]
    values, notes = found(content)
    assert values == plain(STUDENT) and note in notes


@pytest.mark.parametrize("system", ["nvlabs_segformer_b0", "smp_segformer_mit_b0"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole names", "names within the entry"])
def test_halves_of_a_network_get_the_names_that_a_code_base_gives_them(system: str, whole: bool) -> None:
    state = {name: torch.zeros(shape) for name, shape, _ in manifest(system)}
    content: dict[str, Any] = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        content.setdefault(part, {})[name if whole else rest] = value
    read = opened(saved({**content, "epoch": 1}))
    assert read.tensors.keys() == state.keys() and " and ".join(content)[:12] in read.notes[0]


def test_halves_get_the_names_of_their_entries_where_nobody_knows_them() -> None:
    values, _ = found({"backbone": module({"a": torch.ones(1)}), "decode_head": {"b": torch.zeros(1)}, "epoch": 1})
    assert values == {"backbone.a": 1, "decode_head.b": 0}


def test_an_entry_can_be_named() -> None:
    content = {"generator": STUDENT, "critic": {"w": torch.ones(1)}}
    with pytest.raises(CheckpointError, match=r"a\.pth: found no state dict under a usual name.*--branch generator"):
        found(content)
    assert found(content, "generator")[0] == plain(STUDENT)


def test_losses_of_a_lightning_module_are_left_out() -> None:
    state = {f"arch.{name}": value for name, value in STUDENT.items()}
    values, notes = found(lightning({**state, "criterion.weight": torch.ones(2), "val_iou.confmat": torch.zeros(2)}))
    assert values == {f"arch.{name}": value for name, value in plain(STUDENT).items()}
    assert "left out losses and metrics beside the network: criterion, val_iou" in notes


@pytest.mark.parametrize(
    "more",
    [
        argparse.Namespace(lr=0.1, data="x"), pathlib.PurePosixPath("/x"), collections.defaultdict(list),
        collections.deque([1.0]), datetime.datetime(2024, 1, 1), {1, 2}, np.float32(0.3), np.arange(3, dtype=np.int16),
        random.getstate(), 1j, b"abc", slice(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_whatever_training_code_keeps_beside_the_network_is_passed_over(more: Any) -> None:
    assert found({"model": STUDENT, "more": more})[0] == plain(STUDENT)


def nested(levels: int, leaf: Any) -> Any:
    """Containers in each other, in which every usual name and many averages hold the same."""
    keys = ("state_dict", "model", "net", "network", "student", "module", "params", "weights", "encoder", "decoder")
    inner = leaf
    for _ in range(levels):
        inner = ordered(dict.fromkeys((*keys, *(f"ema_{i}" for i in range(40))), inner))
    return inner


def test_containers_that_share_what_they_hold_are_searched_once() -> None:
    many = ordered({str(i): i for i in range(20_000)})
    with pytest.raises(CheckpointError, match="found no state dict"):
        opened(zipped(nested(6, many), {}))
    one = ordered({"w": tensor(storage("0", 1), (1,)), **{str(i): i for i in range(20_000)}})
    assert list(opened(zipped(nested(2, one), {"0": floats(1)})).tensors) == ["w"]


def test_a_student_at_an_unusual_place_is_not_replaced_by_the_teacher() -> None:
    content = {"student": {"a": STUDENT}, "teacher": TEACHER}
    with pytest.raises(CheckpointError, match=r"a in the entry student seems to be the student.*--branch teacher"):
        found(content)
    assert found(content, "teacher")[0] == plain(TEACHER)
    assert found({"student": {"loss": {"mean": torch.ones(1)}}, "teacher": TEACHER})[0] == plain(TEACHER)


def test_tensors_without_plain_values_have_a_remedy() -> None:
    for tensor_, words in (
        (torch.eye(2).to_sparse(), "is sparse: not supported. Save its `.to_dense()`."),
        (torch.empty(2, device="meta"), "The file has no values for it: load the weights, and save the model again"),
    ):
        with pytest.raises(CheckpointError) as error:
            found({"model": {**STUDENT, "a.b": tensor_}})
        assert words in str(error.value)
