"""Networks with parameters that mean something only together, and merges of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.hub.refs import parse_ref
from hf_lwmm.planning.plan import MergePlan, make_plan

State = dict[str, Tensor]

HALF = {"method": "isotropic"}


def drawn(seed: int) -> Callable[..., Tensor]:
    source = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=source)


def body(seed: int) -> State:
    """A network's plain part, large beside the groups of these tests."""
    draw = drawn(seed)
    return {"stem.weight": draw(40, 30), "stem.bias": draw(40), "out.weight": draw(4, 30)}


def saved(path: Path, state: State, suffix: str = ".pth") -> Path:
    path = path.with_suffix(suffix)
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


def written(
    tmp_path: Path, *states: State, base: State | None = None, suffix: str = ".pth", **knobs: Any
) -> tuple[MergePlan, State]:
    """The plan of a merge, and its tensors."""
    paths = [saved(tmp_path / f"model{i}", state, suffix) for i, state in enumerate(states)]
    paths += [saved(tmp_path / "base", base, suffix)] if base else []
    opened = [open_checkpoint(hub.resolve(parse_ref(path))) for path in paths]
    try:
        models, rest = opened[: len(states)], opened[len(states) :]
        decided = make_plan(models, 0, hf_lwmm.Knobs(**knobs), rest[0] if rest else None)
        folder = tmp_path / "out"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_merged(decided, folder)
    finally:
        for each in opened:
            each.close()
    return decided, load_file(folder / "model.safetensors")


def equal(one: Tensor, other: Tensor) -> bool:
    """True if two tensors have the same type and bytes."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    raw = [each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)]
    return torch.equal(*raw)


def adapter(seed: int, stem: str = "base_model.model.attn.query", first: str = "lora_A", last: str = "lora_B") -> State:
    draw = drawn(seed)
    return {f"{stem}.{first}.weight": draw(4, 30), f"{stem}.{last}.weight": draw(40, 4), "head.weight": draw(60, 60)}


def codes(draw: Callable[..., Tensor], *shape: int) -> Tensor:
    return (100 * draw(*shape)).to(torch.int8)


# Schemes by name: tensors of one quantised layer, the codes first.
SCHEMES: dict[str, Callable[[Callable[..., Tensor]], State]] = {
    "fp8": lambda d: {"weight": d(4, 8).to(torch.float8_e4m3fn), "weight_scale": d(4, 1), "input_scale": d(1)},
    "fp8 blocks": lambda d: {"weight": d(4, 8).to(torch.float8_e5m2), "weight_scale_inv": d(1, 1)},
    "fp8 alone": lambda d: {"weight": d(4, 8).to(torch.float8_e4m3fn)},
    "bitsandbytes 8": lambda d: {"weight": codes(d, 4, 8), "SCB": d(4)},
    "bitsandbytes 4": lambda d: {
        "weight": codes(d, 16, 1).view(torch.uint8), "weight.absmax": d(2), "weight.quant_map": d(16),
        "weight.nested_absmax": d(1), "weight.quant_state.bitsandbytes__nf4": codes(d, 9).view(torch.uint8),
    },
    "GPTQ": lambda d: {
        "qweight": torch.ones(1, 8, dtype=torch.int32), "qzeros": torch.ones(1, 1, dtype=torch.int32),
        "scales": d(1, 8).half(), "g_idx": torch.zeros(8, dtype=torch.int32),
    },
    "compressed-tensors": lambda d: {
        "weight_packed": torch.ones(4, 1, dtype=torch.int32), "weight_scale": d(4, 1),
        "weight_shape": torch.tensor([4, 8]),
    },
    "quanto": lambda d: {"weight._data": codes(d, 4, 8), "weight._scale": d(4, 1)},
    "HQQ": lambda d: {"W_q": codes(d, 4, 4).view(torch.uint8), "scale": d(4, 1), "zero": d(4, 1)},
    "of 16 bits": lambda d: {"weight": codes(d, 4, 8).short(), "scale": d(4)},
    "of 32 bits": lambda d: {"weight": codes(d, 4, 8).int(), "alpha": d(4)},
    "a scale of any name": lambda d: {"weight": codes(d, 4, 8).view(torch.uint8), "s": d(4)},
    "one bit": lambda d: {"weight": d(4, 8) > 0, "alpha": d(4)},
    "places in a codebook": lambda d: {"indices": codes(d, 4, 8).view(torch.uint8), "centroids": d(9)},
    "scales of the name": lambda d: {"kernels": codes(d, 4, 8).int(), "kernels_scale": d(4)},
    "scales inside": lambda d: {"weight": codes(d, 4, 8).short(), "quantizer.s": d(4), "quan_w_fn.alpha": d(1)},
    "ModelOpt": lambda d: {"weight": codes(d, 4, 8).view(torch.float8_e4m3fn), "weight_quantizer._scale": d(1)},
    "sparse rows": lambda d: {
        "values": d(6), "crow_indices": torch.tensor([0, 3, 6]), "col_indices": torch.arange(6) % 4,
    },
    "sparse places": lambda d: {"weight_values": d(6), "weight_indices": torch.arange(12).view(2, 6)},
    "product quantisation": lambda d: {"centroids": d(9, 2), "assignments": torch.arange(8) % 9},
    "microscaling": lambda d: {"w_blocks": codes(d, 4, 4).view(torch.uint8), "w_scales": d(4, 1)},
}  # fmt: skip


def layer(scheme: str, seed: int) -> State:
    made = {f"net.fc.{name}": tensor for name, tensor in SCHEMES[scheme](drawn(seed)).items()}
    return made | {"net.fc.bias": drawn(seed)(4), "net.norm.weight": drawn(seed)(4)}
