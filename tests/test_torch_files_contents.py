"""Networks are found wherever training code keeps them, and nothing in a torch file is ever run or imported."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_files import (
    Made,
    Named,
    both,
    bytes_of,
    floats,
    module,
    opened,
    ordered,
    storage,
    tensor,
    values,
    zipped,
)

from hf_lwmm.errors import CheckpointError

FORMATS = pytest.mark.parametrize("zip_file", [True, False], ids=["zip", "legacy"])
BLOCKS = {"0": floats(1, 2), "1": floats(3)}
A, B = tensor(storage("0", 2), (2,)), tensor(storage("1", 1), ())
STATE = {"a.weight": A, "b": B}
ATTRIBUTES = Named("lightning.fabric.utilities.data", "AttributeDict")
PLAIN = {"a.weight": [1, 2], "b": [3]}


class Block(torch.nn.Module):
    """A module with all that a module may have: parts, tied weights, buffers that are not saved, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)})
        self.head["b"].weight = self.head["a"].weight
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("dropped", torch.arange(5), persistent=False)
        self.register_buffer("none", None)
        self.register_parameter("nothing", None)
        self.again = self.head["a"]


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net, "ema": None}], ids=["bare", "contained"])
def test_a_pickled_module_has_the_names_and_values_of_its_state_dict(wrap: Any, protocol: int, zip_file: bool) -> None:
    torch.manual_seed(0)
    network, file = Block(), io.BytesIO()
    torch.save(wrap(network), file, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_file)
    read = opened(file.getvalue())
    expected = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    assert bytes_of(read) == expected and list(read.tensors) == list(expected)
    assert "whole module" in read.notes[0]


@FORMATS
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        ordered(STATE),
        {"state_dict": STATE},
        {"model_state_dict": ordered(STATE), "optimizer": {"state": {0: {"exp_avg": A}}}},
        {"model": module({"b": B}, {"a": module({"weight": A})})},
        {"net": module(None, {"module": module({"b": B}, {"a": module({"weight": A})})})},
        Made(Named("somewhere", "Runner"), (), None, {"network": ordered(STATE), "rng": Made(Named("x", "Y"), (1,))}),
        module({"b": B}, {"a": module({"weight": A}), "none": None}),
        {"state_dict": ordered({f"module.{name}": value for name, value in STATE.items()}), "epoch": 1},
    ],
)
def test_tensors_are_found_wherever_they_are(content: Any, zip_file: bool) -> None:
    assert values(both(content, BLOCKS, zip_file)) == PLAIN


class Writes:
    """Writes a file if anything runs it."""

    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("written"), "yes"))


def call(module: str, name: str, *arguments: Any) -> Made:
    return Made(Named(module, name), arguments)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_in_a_file_is_run(
    zip_file: bool, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights, file = torch.ones(2), io.BytesIO()
    torch.save(
        {"state_dict": {"w": weights}, "x": Writes()},
        file,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zip_file,
    )
    assert values(file.getvalue()) == {"w": [1, 1]}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Writes()))(0)  # which is what running it does
    assert [path.name for path in tmp_path.iterdir()] == ["written"]


@FORMATS
def test_nothing_is_imported(zip_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "intruder.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    content = {
        "state_dict": STATE,
        "a": call("intruder", "run"),
        "b": Named("intruder", "Cls"),
        "c": Made(call("builtins", "__import__", "intruder"), (), {"x": 1}),
        "d": module({"w": A}, cls=Named("intruder", "Net")),
    }
    before = set(sys.modules)
    assert values(both(content, BLOCKS, zip_file)) == PLAIN
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "value",
    [
        call("os", "system", "touch written"),
        call("builtins", "eval", "open('written', 'w')"),
        call("torch._utils", "_rebuild_parameter", call("os", "system", "touch written"), True, None),
        call("torch._utils", "_rebuild_from_type_v2", Named("os", "system"), Named("x", "y"), ("touch written",), {}),
        tensor(call("os", "system", "touch written"), (2,)),
    ],
)
def test_what_would_run_in_place_of_a_tensor_is_refused(
    value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^a\.pth: (found no state dict|tensor 'w' is damaged)"):
        opened(zipped({"w": value}, BLOCKS))
    assert list(tmp_path.iterdir()) == []


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"w": value}, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "nested"),
        (lambda: torch.empty(3, device="meta"), "without values"),
        (lambda: torch.ones(3, dtype=torch.complex128), "complex128"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "stored conjugated"),
        (lambda: torch._neg_view(torch.ones(3)), "stored conjugated or negated"),
    ],
)
def test_tensors_of_other_kinds_are_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^a\.pth: tensor 'w' is ({words}).*: not supported"):
        opened(saved(make()))


def test_a_torchscript_archive_is_refused_by_name() -> None:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with pytest.raises(CheckpointError, match=r"is a TorchScript archive.*torch\.jit\.load\(file\)\.state_dict"):
        opened(file.getvalue())


def test_a_compressed_archive_is_refused_by_name() -> None:
    zeros = {"w": tensor(storage("0", 4000), (4000,))}
    with pytest.raises(CheckpointError, match=r"its entry archive/data.pkl is compressed.*zip -0"):
        opened(zipped(zeros, {"0": b"\0" * 16_000}, compression=zipfile.ZIP_DEFLATED))


def test_an_archive_that_was_zipped_anew_without_compression_is_read() -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(zipped(STATE, BLOCKS))) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new,
    ):
        new.mkdir("archive")
        for name in reversed(old.namelist()):
            with new.open(name, "w") as entry:
                entry.write(old.read(name))
    assert values(file.getvalue()) == PLAIN


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ({"meta": {"CLASSES": ("road", "sky"), "PALETTE": [[1, 2, 3]]}}, ("road", "sky")),
        ({"meta": {"CLASSES": ["road", "sky"]}}, ("road", "sky")),
        ({"meta": {"dataset_meta": {"classes": ("road", "sky")}}}, ("road", "sky")),
        ({"message_hub": {"runtime_info": ordered({"dataset_meta": {"classes": ["road", "sky"]}})}}, ("road", "sky")),
        ({"hyper_parameters": {"id2label": {1: "sky", 0: "road"}}}, ("road", "sky")),
        ({"hyper_parameters": Made(ATTRIBUTES, (), None, {"class_names": ["road", "sky"]})}, ("road", "sky")),
        ({"hyper_parameters": {"labels": "road"}}, None),
        ({"meta": {"CLASSES": ()}}, None),
        ({"meta": {"CLASSES": (0, 1)}}, None),
        ({"meta": None, "message_hub": 3, "hyper_parameters": [1]}, None),
    ],
)
def test_class_names_are_found_in_containers(content: dict[str, Any], classes: tuple[str, ...] | None) -> None:
    assert opened(zipped({"state_dict": STATE, **content}, BLOCKS)).classes == classes


@pytest.mark.parametrize("names", [{0: "road", 1: "sky"}, ["road", "sky"]])
@pytest.mark.parametrize("key", ["model", "ema"])
def test_class_names_of_ultralytics_lie_in_the_module(key: str, names: Any) -> None:
    content = {"epoch": -1, "model": None, "ema": None, "version": "8.3.0", "date": "2025-01-02"}
    content[key] = module({"b": B}, {"a": module({"weight": A})}, names=names, yaml={"nc": 2})
    file = opened(zipped(content, BLOCKS))
    assert file.classes == ("road", "sky") and set(file.tensors) == set(PLAIN)
    assert file.metadata == {"epoch": "-1", "version": "8.3.0", "time": "2025-01-02"}


def test_facts_of_the_training_run_are_kept_as_short_texts() -> None:
    meta = {"iter": 40_000, "mmcv_version": "1.7.0", "time": "x" * 500, "mmseg_version": None, "other": 1}
    file = opened(zipped({"meta": meta, "state_dict": STATE, "epoch": 3, "global_step": True}, BLOCKS))
    assert file.metadata == {"iteration": "40000", "mmcv": "1.7.0", "time": "x" * 100, "epoch": "3"}


def test_a_file_without_a_network_says_what_it_holds() -> None:
    for content, words in (
        ({"optimizer": {}, "lr": 1}, "found no state dict in it, only: optimizer, lr"),
        ([1, 2], "holds a list, not a state dict"),
        (A, r"holds a torch\._utils\._rebuild_tensor_v2, not a state dict"),
        (call("argparse", "Namespace"), r"holds a argparse\.Namespace, not a state dict"),
        ({}, "holds a dict"),
    ):
        with pytest.raises(CheckpointError, match=rf"^a\.pth: {words}"):
            opened(zipped(content, BLOCKS))
