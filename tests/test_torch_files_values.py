"""Every value of a torch file is the one that torch itself reads, whatever the tensor, the container and the format."""

from __future__ import annotations

import io
import itertools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import (
    Kept,
    Made,
    Named,
    bytes_of,
    floats,
    legacy,
    opened,
    ordered,
    pickled,
    storage,
    tensor,
    values,
    zipped,
)

from hf_lwmm.errors import CheckpointError

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0", torch.complex64: "C64",
}  # fmt: skip
# Whose legacy files torch itself writes, but cannot read.
UNTYPED = (
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
)  # fmt: skip
FORMATS = list(itertools.product((True, False), (2, 3, 4, 5)))
State = dict[str, torch.Tensor]


def saved(content: Any, zip_file: bool = True, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_file)
    return file.getvalue()


def raw(value: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements in order."""
    flat = value.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def same(content: bytes, expected: State) -> None:
    file = opened(content)
    assert bytes_of(file) == {name: raw(value) for name, value in expected.items()}
    for name, value in expected.items():
        info = file.tensors[name]
        assert (info.dtype, info.shape) == (DTYPES[value.dtype], tuple(value.shape))


BASE = torch.arange(24.0).reshape(2, 3, 4)
VIEWS: State = {
    "whole": BASE,
    "transposed": BASE.permute(2, 0, 1),
    "a row": BASE[1],
    "a column": BASE[:, 1, :],
    "every second": BASE[:, :, ::2],
    "from the middle": BASE.reshape(-1)[5:17],
    "expanded": BASE[0, 0, :1].expand(5, 3, 1),
    "expanded scalar": torch.tensor(7.0).expand(2, 2),
    "broadcast rows": BASE[0, 1].expand(6, 4),
    "a diagonal": BASE[0, :3, :3].diagonal(),
    "windows": torch.as_strided(BASE, (5, 4), (2, 1)),
    "channels last": torch.arange(48.0).reshape(2, 3, 2, 4).contiguous(memory_format=torch.channels_last),
    "one element of many dimensions": BASE[:1, :1, :1],
    "no dimension": BASE[1, 2, 3],
    "none": BASE[:0],
    "none of a wide row": torch.empty(0, 7),
    "none, expanded": torch.empty(1, 0).expand(4, 0),
    "shared": BASE,
}


@pytest.mark.parametrize(("zip_file", "protocol"), FORMATS)
def test_views_and_strides_give_the_values_that_torch_gives(zip_file: bool, protocol: int) -> None:
    same(saved(VIEWS, zip_file, protocol), VIEWS)


@pytest.mark.parametrize("zip_file", [True, False], ids=["zip", "legacy"])
def test_every_type_of_element_is_read(zip_file: bool) -> None:
    draw = np.random.default_rng(0).integers(0, 2, 96, np.uint8)
    bits = torch.from_numpy(draw)
    state = {str(dtype): bits.view(dtype).reshape(-1, 2 if dtype.itemsize < 8 else 1) for dtype in DTYPES}
    state |= {f"{dtype} scattered": value.t() for dtype, value in list(state.items())}
    state = {name: value.clone(memory_format=torch.preserve_format) for name, value in state.items()}
    same(saved(state, zip_file), state)


def test_pieces_of_a_tensor_are_read_from_any_byte() -> None:
    file = opened(saved(VIEWS))
    for name in ("whole", "transposed", "expanded", "windows"):
        whole = raw(VIEWS[name])
        for start in range(0, len(whole), 12):
            buffer = bytearray(min(20, len(whole) - start))
            file.reader.read(name, start, memoryview(buffer))
            assert bytes(buffer) == whole[start : start + len(buffer)]


@st.composite
def states(draw: st.DrawFn) -> State:
    """A few tensors of one type, with views of them."""
    dtype = draw(st.sampled_from(list(DTYPES)))
    state: State = {}
    for i in range(draw(st.integers(1, 3))):
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        size = int(np.prod(shape)) * dtype.itemsize
        data = draw(st.binary(min_size=size, max_size=size))
        if dtype == torch.bool:
            data = bytes(byte & 1 for byte in data)
        value = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[:size].clone().view(dtype).reshape(shape)
        state[f"layer{i}.weight"] = value
        for j in range(draw(st.integers(0, 3))):
            state[f"layer{i}.view{j}"] = value = draw(view_of(value))
    return state


@st.composite
def view_of(draw: st.DrawFn, value: torch.Tensor) -> torch.Tensor:
    kind = draw(st.sampled_from(("slice", "permute", "expand", "select", "flip order")))
    if kind == "expand":
        return value.unsqueeze(0).expand(draw(st.integers(0, 3)), *value.shape)
    if not value.ndim:
        return value
    dim = draw(st.integers(0, value.ndim - 1))
    if kind == "slice":
        cut = [slice(None)] * value.ndim
        cut[dim] = slice(draw(st.integers(0, 2)), draw(st.integers(0, 5)), draw(st.integers(1, 3)))
        return value[tuple(cut)]
    if kind == "select" and value.shape[dim]:
        return value.select(dim, draw(st.integers(0, value.shape[dim] - 1)))
    return value.permute(draw(st.permutations(range(value.ndim))))


def adam(state: State) -> dict[str, Any]:
    each = {i: {"step": torch.tensor(3.0), "exp_avg": value} for i, value in enumerate(state.values())}
    return {"state": each, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": list(each)}]}


CONTAINERS = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": adam(state)},
    "model": lambda state: {
        "optimizer": adam(state),
        "model": OrderedDict(state),
        "args": [None, True, 1.5],
    },
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    state=states(),
    container=st.sampled_from(list(CONTAINERS)),
    zip_file=st.booleans(),
    protocol=st.integers(2, 5),
)
def test_every_value_is_that_of_torch_load(state: State, container: str, zip_file: bool, protocol: int) -> None:
    content = saved(CONTAINERS[container](state), zip_file, protocol)
    loaded: Any = state
    if zip_file or next(iter(state.values())).dtype not in UNTYPED:
        # Of protocols 4 and 5, torch's own safe reader knows no more than a part.
        loaded = torch.load(io.BytesIO(content), weights_only=protocol < 4)
        loaded = loaded.get("state_dict", loaded.get("model", loaded))
    same(content, dict(loaded))


# Files as other versions and machines write them, made by hand.

W = tensor(storage("0", 6), (2, 3))
ONE, SIX = {"w": [1, 2, 3, 4, 5, 6]}, floats(1, 2, 3, 4, 5, 6)
OLD = Named("torch._utils", "_rebuild_tensor")
CUDA = Kept(("storage", Named("torch.cuda", "FloatStorage"), "0", "cuda:1", 6))
WIDE = {"0": (9, floats(8, 9) + SIX + floats(7))}


@pytest.mark.parametrize(
    "content",
    [
        zipped(ordered({"w": W}), {"0": SIX}, root="latest_daformer"),
        zipped(ordered({"w": W}), {"0": SIX}, byteorder=None),
        zipped(ordered({"w": W}), {"0": SIX}, by_name=True),
        zipped({"w": Made(OLD, (storage("0", 6), 0, (2, 3), (3, 1)))}, {"0": SIX}),
        zipped({"w": tensor(CUDA, (2, 3))}, {"0": SIX}),
        zipped(Made(Named("collections", "OrderedDict"), ([["w", W]],)), {"0": SIX}),
        zipped(b"\x80\x02" + pickled({"w": W})[2:].replace(b"X\1\0\0\0w", b"U\1w"), {"0": SIX}),
        legacy(Made(Named("collections", "OrderedDict"), ([["w", W]],)), {"0": (6, SIX)}),
        legacy({"w": Made(OLD, (storage("0", 6), 0, (2, 3), (3, 1)))}, {"0": (6, SIX)}),
        legacy({"w": tensor(storage("0", 6, "Float", None), (2, 3))}, {"0": (6, SIX)}),
        legacy({"w": tensor(storage("0", 9, "Float", ("v", 2, 6)), (2, 3))}, WIDE),
        legacy({"w": tensor(storage("0", 9, "Float", ("v", 1, 7)), (2, 3), offset=1)}, WIDE),
    ],
    ids=[
        "root of the file's name",
        "no byte order",
        "records by name",
        "first rebuild",
        "cuda",
        "Python 2's dictionary",
        "Python 2's texts",
        "legacy, Python 2's dictionary",
        "legacy, first rebuild",
        "legacy, no view",
        "legacy, a view",
        "legacy, a view and an offset",
    ],
)
def test_files_of_old_versions_are_read(content: bytes) -> None:
    assert values(content) == ONE


def test_a_view_of_a_legacy_file_cannot_reach_outside_itself() -> None:
    view = storage("0", 9, "Float", ("v", 2, 5))
    with pytest.raises(CheckpointError, match="does not lie within its storage"):
        opened(legacy({"w": tensor(view, (2, 3))}, {"0": (9, floats(*range(9)))}))


def test_a_legacy_module_with_its_source_is_read() -> None:
    cls = Kept(("module", Named("somewhere.networks", "Network"), "networks.py", "class Network: ..."))
    state = {"_parameters": ordered({"w": W}), "_buffers": ordered({}), "_modules": ordered({})}
    assert values(legacy(Made(cls, (), state), {"0": (6, SIX)})) == ONE


TYPES = [("ComplexFloat", "c8"), ("Double", "f8"), ("Float", "f4"), ("Half", "f2"), ("Long", "i8"), ("Byte", "u1")]


@pytest.mark.parametrize(("kind", "code"), TYPES)
def test_big_endian_archives_give_the_right_values(kind: str, code: str) -> None:
    numbers = np.arange(1, 7)
    state = {"w": tensor(storage("0", 6, kind), (2, 3)), "t": tensor(storage("0", 6, kind), (3, 2), (1, 3))}
    file = bytes_of(opened(zipped(state, {"0": numbers.astype(f">{code}").tobytes()}, byteorder="big")))
    assert np.array_equal(np.frombuffer(file["w"], f"<{code}"), numbers)
    assert np.array_equal(np.frombuffer(file["t"], f"<{code}"), numbers.reshape(2, 3).T.reshape(-1))


@pytest.mark.parametrize("name", ["whole", "transposed", "from the middle"])
def test_big_endian_archives_give_what_torch_gives(name: str) -> None:
    block = raw(torch.as_strided(VIEWS[name], (VIEWS[name].untyped_storage().nbytes() // 4,), (1,), 0))
    big = np.frombuffer(block, "<f4").astype(">f4").tobytes()
    size = len(block) // 4
    view = VIEWS[name]
    made = zipped(
        {name: tensor(storage("0", size), tuple(view.shape), view.stride(), view.storage_offset())},
        {"0": big},
        byteorder="big",
    )
    same(made, {name: view})
    assert torch.equal(torch.load(io.BytesIO(made), weights_only=True)[name], view)


def test_legacy_files_of_big_endian_machines_are_little_endian_as_torch_reads_them() -> None:
    content = legacy({"w": tensor(storage("0", 6, "Float", None), (2, 3))}, {"0": (6, SIX)}, little_endian=False)
    assert values(content) == ONE
    assert torch.load(io.BytesIO(content), weights_only=True)["w"].flatten().tolist() == ONE["w"]


def test_files_are_read_from_disk_as_from_memory(tmp_path: Path) -> None:
    torch.save(VIEWS, tmp_path / "a.pth")
    assert bytes_of(opened(tmp_path / "a.pth")) == {name: raw(value) for name, value in VIEWS.items()}
