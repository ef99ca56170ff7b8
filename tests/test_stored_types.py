"""Every type and header that the safetensors format has: read as its library reads them, and kept byte for byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import calls
import numpy as np
import pytest
import torch
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st
from manifests import stored
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch_files import Held

import hf_lwmm
from hf_lwmm.checkpoints.dtypes import BITS, is_float
from hf_lwmm.checkpoints.safetensors_file import read_header
from hf_lwmm.engine import streaming
from hf_lwmm.errors import AlignmentError, CheckpointError, LayoutError, PlanError

pytestmark = pytest.mark.usefixtures("without_plots")

OTHERS = [dtype for dtype in BITS if not is_float(dtype)]
Stored = tuple[str, list[int], bytes]


def content(tensors: dict[str, Stored], **more: Any) -> bytes:
    """A safetensors file; `metadata` and `trailing` bytes may be added."""
    head: dict[str, Any] = {"__metadata__": more["metadata"]} if "metadata" in more else {}
    data = b""
    for name, (dtype, shape, raw) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data + more.get("trailing", b"")


def floats(seed: int, *shape: int) -> Stored:
    values = np.random.default_rng(seed).standard_normal(shape).astype("<f4")
    return "F32", list(shape), values.tobytes()


def odd(dtype: str, seed: int, count: int = 24) -> Stored:
    return dtype, [count // 4, 4], np.random.default_rng(seed).bytes(count * BITS[dtype] // 8)


def read(path: Path, name: str) -> bytes:
    header = read_header(Held(path.read_bytes(), path.name))
    start = header.starts[name]
    return path.read_bytes()[start : start + header.tensors[name].nbytes]


@pytest.mark.parametrize("dtype", OTHERS)
def test_other_types_stay_the_anchors_and_are_named(
    dtype: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 16)  # so that these small tensors are written in pieces, too
    for seed in (1, 2):
        tensors = {"a": floats(seed, 40, 10), "odd": odd(dtype, seed)}
        (tmp_path / f"m{seed}.safetensors").write_bytes(content(tensors))
    code, out, err = run("merge", "m1.safetensors", "m2.safetensors", "--output", "out", "--method", "isotropic")
    assert code == 0 and "94.3% of the weights are shared" in out
    result = tmp_path / "out" / "model.safetensors"
    assert read(result, "odd") == odd(dtype, 1)[2] and read(result, "a") != floats(1, 40, 10)[2]
    with safe_open(result, "np") as opened:
        assert sorted(opened.keys()) == ["a", "odd"]
    assert ("1 tensor (odd) is" in err) == (dtype.startswith(("F", "C")))
    assert hf_lwmm.inspect("m1.safetensors").dtypes[dtype.lower()] == 24


@pytest.mark.parametrize("dtype", OTHERS)
def test_a_network_of_other_types_alone_is_refused_by_name(dtype: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"m{seed}.safetensors").write_bytes(content({"odd": odd(dtype, seed)}))
    with pytest.raises(AlignmentError, match=r"Of the 24 weights of m1.* 24 cannot be merged(.|\n)*\(odd\) is .* Save"):
        hf_lwmm.plan([tmp_path / "m1.safetensors", tmp_path / "m2.safetensors"])


def test_complex_tensors_of_torch_files_are_kept(tmp_path: Path) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = {"a": torch.randn(40, 10), "freqs": torch.randn(3, 2, dtype=torch.complex64).t()}
        torch.save(state, tmp_path / f"m{seed}.pth")
    paths = [tmp_path / "m1.pth", tmp_path / "m2.pth"]
    result = hf_lwmm.merge(paths, output=tmp_path / "out")
    freqs = torch.load(paths[0])["freqs"].contiguous()
    assert read(tmp_path / "out" / "model.safetensors", "freqs") == freqs.numpy().tobytes()
    assert any("1 tensor (freqs) is complex. Save" in warning for warning in result.warnings)


# --- headers


WHOLE: dict[str, Stored] = {"a": ("F32", [2, 2], bytes(16))}
HEADERS: dict[str, bytes] = {
    "no metadata": content(WHOLE),
    "null": content(WHOLE, metadata=None),
    "texts": content(WHOLE, metadata={"format": "pt", "n": "0"}),
    "nothing": content(WHOLE, metadata={}),
    "numbers": content(WHOLE, metadata={"n": 0, "l": [1]}),
    "a null inside": content(WHOLE, metadata={"n": None}),
    "a list": content(WHOLE, metadata=["x"]),
    "an empty list": content(WHOLE, metadata=[]),
    "a text": content(WHOLE, metadata="pt"),
    "an empty text": content(WHOLE, metadata=""),
    "a number": content(WHOLE, metadata=5),
    "zero": content(WHOLE, metadata=0),
    "false": content(WHOLE, metadata=False),
    "trailing bytes": content(WHOLE, trailing=bytes(64)),
    "half of a surrogate": content({"a\ud800": WHOLE["a"]}),
    "a whole surrogate pair": content({"a\U0001f600": WHOLE["a"]}),
    "half of a surrogate in metadata": content(WHOLE, metadata={"n": "\udc00"}),
    "metadata alone": content({}, metadata={"a": "b"}),
    "a type that is none": content({"a": ("F31", [2, 2], bytes(16))}),
    "a type that is a list": content({"a": (["F32"], [2, 2], bytes(16))}),  # type: ignore[dict-item]
    "half a byte": content({"a": ("F4", [3], bytes(1))}),
    "half a byte more": content({"a": ("F4", [3], bytes(2))}),
    "bits that fill bytes": content({"a": ("F6_E2M3", [2, 2], bytes(3))}),
    "no dimension": content({"a": ("F4", [], b"")}),
    "no elements": content({"a": ("F6_E3M2", [0, 3], b"")}),
    "a header that is a list": struct.pack("<Q", 2) + b"[]",
    "a header that is null": struct.pack("<Q", 8) + b"null    ",
    "an empty header": struct.pack("<Q", 2) + b"{}",
}


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, "np"):
            return True
    except SafetensorError:
        return False


@pytest.mark.parametrize("case", HEADERS)
def test_headers_are_taken_by_the_librarys_rule(case: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(HEADERS[case])
    empty = case in ("metadata alone", "an empty header")
    code, _, err = run("inspect", "m.safetensors")
    assert (code == 0) == (library_takes(path) and not empty)
    assert code == 0 or (err.startswith("Error: m.safetensors: ") and err.count("\n") == 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@given(metadata=JSON, dtype=st.sampled_from([*BITS, "F16_", ""]), shape=st.lists(st.integers(0, 5), max_size=3))
def test_any_header_is_taken_by_the_librarys_rule(
    metadata: Any, dtype: str, shape: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    size = -(-int(np.prod(shape)) * BITS.get(dtype, 8) // 8)
    raw = content({"a": (dtype, shape, bytes(size))}, metadata=metadata)
    path = tmp_path_factory.mktemp("header") / "m.safetensors"
    path.write_bytes(raw)
    try:
        read_header(Held(raw, "m.safetensors"))
        taken = True
    except CheckpointError:
        taken = False
    assert taken == library_takes(path)


def test_a_layout_that_would_cut_inside_a_byte_is_refused(tmp_path: Path) -> None:
    tensors = {
        name: ("F4", list(array.shape), bytes(array.size // 2))
        if name.endswith(("key.weight", "value.weight"))
        else ("F32", list(array.shape), array.tobytes())
        for name, array in stored("transformers_segformer_b0_hub_legacy", shrink=8).items()
        if "int" not in str(array.dtype)
    }
    (tmp_path / "m.safetensors").write_bytes(content(tensors))
    refusal = r"m\.safetensors: .*kv\.weight would be cut or stacked from F4, inside a byte"
    with pytest.raises(LayoutError, match=refusal):
        hf_lwmm.convert(tmp_path / "m.safetensors", tmp_path / "out", to="nvidia")


def test_measurements_of_no_floats_are_refused(tmp_path: Path) -> None:
    names = ["a.safetensors", "b.safetensors", "fa.safetensors", "fb.safetensors"]
    for seed, name in enumerate(names):
        tensors = {"layer.weight": ("I32", [4, 4], bytes(64)) if name.startswith("f") else floats(seed, 4, 4)}
        (tmp_path / name).write_bytes(content(tensors))
    paths = [tmp_path / name for name in names]
    with pytest.raises(PlanError, match=r"fa\.safetensors: its measurements must be floats, but layer\.weight is I32"):
        calls.plan(paths[:2], method="fisher", measurements=paths[2:])


def test_models_of_mixed_float_types_share_all_and_keep_the_anchors_types(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {"backbone.a": torch.randn(8, 8), "backbone.b": torch.randn(8), "head.weight": torch.randn(3, 8)}
    mixed = {name: value.bfloat16() if name.startswith("backbone") else value for name, value in state.items()}
    for name, found in (("mixed", mixed), ("f32", state), ("half", {n: v.half() for n, v in state.items()})):
        save_file(found, tmp_path / f"{name}.safetensors")
    torch.save({name: value.double() for name, value in state.items()}, tmp_path / "f64.pth")
    models = [tmp_path / name for name in ("mixed.safetensors", "f32.safetensors", "half.safetensors", "f64.pth")]
    result = calls.merge(models, output=tmp_path / "out", method="isotropic")
    assert result.plan.alignment.shared_parameters == result.plan.alignment.anchor_parameters == 64 + 8 + 24
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in merged.items():
        assert value.dtype == mixed[name].dtype
        torch.testing.assert_close(value.float(), state[name], rtol=0.01, atol=0.01)
