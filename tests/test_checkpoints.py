"""Opening models: containers, wrappers, choices, and files that are damaged or hostile."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.errors import CheckpointError, HfLwmmError, RefError
from hf_lwmm.hub.refs import ModelRef, parse_ref

STATE = OrderedDict(
    (f"{part}.weight", torch.full((4, 3), float(i)))
    for i, part in enumerate(["backbone.a", "backbone.model.b", "head"])
)


def opened(path: Path, **options: Any) -> Checkpoint:
    return open_checkpoint(hub.resolve(parse_ref(path)), **options)


def values(checkpoint: Checkpoint) -> dict[str, float]:
    found = {}
    for name, info in checkpoint.tensors.items():
        buffer = bytearray(info.nbytes)
        checkpoint.reader.read(name, 0, memoryview(buffer))
        found[name] = float(np.frombuffer(buffer, np.float32)[0])
    return found


PLAIN = {"backbone.a.weight": 0.0, "backbone.model.b.weight": 1.0, "head.weight": 2.0}


def prefixed(prefix: str, add: float = 0) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor + add for name, tensor in STATE.items()}


class Recorder:
    """An object that mmengine keeps in a checkpoint beside the weights, pickled under mmengine's name."""


Recorder.__module__, Recorder.__qualname__, Recorder.__name__ = (
    "mmengine.logging.history_buffer",
    *["HistoryBuffer"] * 2,
)

CONTAINERS: dict[str, Any] = {
    "plain": STATE,
    "DataParallel": prefixed("module."),
    "published": prefixed("model."),
    "mmcv": {"meta": {"CLASSES": ("road", "sky"), "iter": 40000}, "state_dict": STATE, "optimizer": {"state": {}}},
    "mmcv with numpy": {"meta": {"loss": np.float64(0.5), "x": np.arange(3)}, "state_dict": prefixed("module.")},
    "GLC": {"epoch": 3, "model_state_dict": STATE},
    "MaxSquare": {"epoch": 1, "iteration": 2, "state_dict": prefixed("module."), "optimizer": {}, "best_MIou": 0.4},
    "Lightning": {
        "pytorch-lightning_version": "2.0",
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(2)},
        "hyper_parameters": {"lr": 0.1},
    },
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_training_code_are_unwrapped(container: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(CONTAINERS[container], tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert values(opened(tmp_path / "a.pth")) == PLAIN


def test_class_names_come_from_mmcv_meta(tmp_path: Path) -> None:
    torch.save(CONTAINERS["mmcv"], tmp_path / "a.pth")
    assert opened(tmp_path / "a.pth").classes == ("road", "sky")


def test_an_mmengine_runners_records_do_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = Recorder  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mmengine.logging.history_buffer", module)
    record = Recorder()
    record.__dict__["_log_history"] = np.arange(4.0)
    content = {"meta": {"dataset_meta": {"classes": ["x", "y"]}}, "state_dict": STATE, "message_hub": {"log": record}}
    torch.save(content, tmp_path / "a.pth")
    checkpoint = opened(tmp_path / "a.pth")
    assert values(checkpoint) == PLAIN and checkpoint.classes == ("x", "y")


def test_student_and_teacher_are_told_apart_and_the_imagenet_copy_is_never_read(tmp_path: Path) -> None:
    wrapper = {**prefixed("model."), **prefixed("ema_model.", 10), **prefixed("imnet_model.", 100)}
    wrapper["project.weight"] = torch.ones(2)  # PiPa's own, outside any network
    torch.save({"meta": {}, "state_dict": wrapper}, tmp_path / "latest.pth")
    assert values(opened(tmp_path / "latest.pth")) == PLAIN
    teacher = values(opened(tmp_path / "latest.pth", branch="teacher"))
    assert teacher == {name: value + 10 for name, value in PLAIN.items()}
    torch.save(STATE, tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match="no teacher"):
        opened(tmp_path / "plain.pth", branch="teacher")


def test_halves_of_a_network_in_one_container_are_one_model(tmp_path: Path) -> None:
    content = {
        "iteration": 1,
        "feature_extractor": prefixed("module."),
        "classifier": {"module.c.weight": torch.ones(2, 2)},
    }
    torch.save({**content, "model_D": {"d.weight": torch.ones(1)}}, tmp_path / "fada.pth")
    names = set(opened(tmp_path / "fada.pth").tensors)
    assert names == {*(f"feature_extractor.{name}" for name in STATE), "classifier.c.weight"}


def test_several_files_can_be_named_as_one_model(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "extractor.pth")
    torch.save({"b.weight": torch.ones(2)}, tmp_path / "classifier.pth")
    ref = f"{tmp_path}:extractor.pth+classifier.pth"
    assert set(open_checkpoint(hub.resolve(parse_ref(ref))).tensors) == {"a.weight", "b.weight"}


def test_tensors_that_are_not_contiguous_are_read_right(tmp_path: Path) -> None:
    tensor = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    torch.save({"w": tensor, "t": tensor.permute(3, 2, 1, 0)}, tmp_path / "a.pth")
    checkpoint = opened(tmp_path / "a.pth")
    buffer = bytearray(96)
    checkpoint.reader.read("t", 0, memoryview(buffer))
    assert np.array_equal(np.frombuffer(buffer, np.float32), tensor.permute(3, 2, 1, 0).flatten().numpy())


class Exploit:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("exploited"), "yes"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code_is_read_and_runs_nothing(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "x": Exploit()}, "evil.pth", _use_new_zipfile_serialization=zipped)
    assert values(opened(tmp_path / "evil.pth")) == PLAIN
    assert not Path("exploited").exists()


def test_a_pickled_module_is_read_by_its_parts(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    assert set(opened(tmp_path / "model.pt").tensors) == {"weight", "bias"}


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("config.json", "README.md", "model.pth"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(CheckpointError, match=rf"^{name}: is .*no checkpoint\. Safetensors files .*\.pth"):
            opened(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps([1, 2]), b"PK\x03\x04 truncated"])
def test_files_that_are_no_torch_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        opened(tmp_path / "a.pth")


def test_a_truncated_torch_file_is_named(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "a.pth").read_bytes()
        (tmp_path / "a.pth").write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(CheckpointError, match=r"a\.pth"):
            opened(tmp_path / "a.pth")


GOOD = save({"a": np.ones((2, 2), np.float32), "b": np.zeros(3, np.float32)})


def with_header(header: object, data: bytes = b"\0" * 28) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


DAMAGED = {
    "empty": b"",
    "truncated": GOOD[:-3],
    "padded": GOOD + b"\0",
    "header beyond the file": (10**6).to_bytes(8, "little") + b"{}",
    "bad JSON": with_header(b"{'a':"),
    "not an object": with_header([1]),
    "overlapping": with_header({"a": entry(0, 16), "b": entry(12, 28)}),
    "hole": with_header({"a": entry(0, 12), "b": entry(16, 28)}),
    "out of range": with_header({"a": entry(0, 16), "b": entry(16, 60)}),
    "negative": with_header({"a": entry(-4, 28)}),
    "size against shape": with_header({"a": entry(0, 28, [3])}),
    "negative shape": with_header({"a": entry(0, 28, [-7])}),
    "unknown type": with_header({"a": entry(0, 28, dtype="X9")}),
    "a name twice": with_header(b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 28)).encode(),) * 2)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_safetensors_files_are_named(damage: str, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(DAMAGED[damage])
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        opened(tmp_path / "a.safetensors")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_gets_past_as_anything_but_another_tensor(position: int, byte: int, tmp_path: Path) -> None:
    content = bytearray(GOOD)
    content[position] = byte
    (tmp_path / "a.safetensors").write_bytes(content)
    try:
        checkpoint = opened(tmp_path / "a.safetensors")
    except CheckpointError:
        return
    assert sum(info.nbytes for info in checkpoint.tensors.values()) == 28


def repository(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            (folder / name).write_bytes(GOOD)
        elif name.endswith(".json"):
            (folder / name).write_text("{}")
        else:
            torch.save(STATE, folder / name)
    return folder


def test_files_are_chosen_as_transformers_does(tmp_path: Path) -> None:
    both = opened(repository(tmp_path / "both", "model.safetensors", "pytorch_model.bin", "optimizer.pt"))
    assert both.files == ("model.safetensors",) and "not pytorch_model.bin" in both.notes[0]
    assert opened(repository(tmp_path / "bin", "pytorch_model.bin", "training_args.bin")).files == (
        "pytorch_model.bin",
    )
    single = opened(repository(tmp_path / "one", "sub/latest.pth", "optimizer.pt"))
    assert single.files == ("sub/latest.pth",) and "took sub/latest.pth" in single.notes[0]


def test_an_ambiguous_repository_asks_which(tmp_path: Path) -> None:
    folder = repository(tmp_path / "many", "daformer/latest.pth", "hrda/latest.pth")
    with pytest.raises(CheckpointError, match=r"daformer/latest\.pth, hrda/latest\.pth.*many:daformer"):
        opened(folder)
    assert set(open_checkpoint(hub.resolve(parse_ref(f"{folder}:hrda/latest.pth"))).tensors) == set(STATE)


def test_missing_weights_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights found.*config\.json"):
        opened(repository(tmp_path / "none", "config.json"))
    with pytest.raises(CheckpointError, match=r"no file 'x\.pth'"):
        open_checkpoint(hub.resolve(parse_ref(f"{repository(tmp_path / 'a', 'model.safetensors')}:x.pth")))


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a\\b.safetensors", "missing.safetensors"])
def test_a_shard_index_cannot_point_outside_or_at_nothing(shard: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match=r"outside the repository|does not have"):
        opened(tmp_path)


def test_sharded_torch_files_are_one_model(tmp_path: Path) -> None:
    index = {}
    for i, (name, tensor) in enumerate(STATE.items(), 1):
        torch.save({name: tensor}, tmp_path / f"pytorch_model-{i:05d}-of-00003.bin")
        index[name] = f"pytorch_model-{i:05d}-of-00003.bin"
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert values(opened(tmp_path)) == PLAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", ModelRef("org/name")),
        ("org/name@v1.0", ModelRef("org/name", "v1.0")),
        ("org/name@refs/pr/3:sub/model.pth", ModelRef("org/name", "refs/pr/3", None, ("sub/model.pth",))),
        ("org/fada:e.pth+c.pth", ModelRef("org/fada", None, None, ("e.pth", "c.pth"))),
    ],
)
def test_references_are_read(text: str, expected: ModelRef) -> None:
    assert parse_ref(text) == expected and parse_ref(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a b/c", "org/name@", "org/name:", "org/name:../x", "a/b/c", "./no/such/file", "org/..", "org/name:/etc/x"],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(RefError):
        parse_ref(text)


def test_inspect_tells_what_a_file_is(tmp_path: Path) -> None:
    from manifests import stored, write

    info = hf_lwmm.inspect(write(tmp_path / "a.safetensors", stored("nvlabs_segformer_b0")))
    assert (info.architecture, info.layout) == ("MiT-B0, SegFormer head", "mit/nvidia + segformer/nvidia")
    assert info.parameters == sum(n for dtype, n in info.dtypes.items() if dtype == "float32")
    with pytest.raises(HfLwmmError):
        hf_lwmm.inspect(tmp_path / "nothing.safetensors")
