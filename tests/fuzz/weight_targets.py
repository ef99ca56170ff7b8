"""Safetensors files and files of measurements, changed in their headers and in their bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import safetensors
from fuzz.changes import changed_bytes, changed_json
from fuzz.harness import Target, write_anew
from safetensors.numpy import save

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.planning.provenance import measured_model


def _files() -> list[bytes]:
    draw = np.random.default_rng(0)
    plain = {"conv.weight": draw.random((2, 3)), "conv.bias": draw.random(3), "none": np.zeros((0, 4))}
    kinds = {
        f"t{i}": draw.integers(0, 2, 4).astype(kind) for i, kind in enumerate((bool, "u1", "i8", "f2", "f4", "u4"))
    }
    wrapped = {f"module.model.{name}": array for name, array in plain.items()}
    teacher = {prefix + name: array for prefix in ("model.", "ema_model.") for name, array in plain.items()}
    metadata = {"format": "pt", "note": "x"}
    return [save({k: np.asarray(v) for k, v in each.items()}, metadata) for each in (plain, kinds, wrapped, teacher)]


def _change(content: bytes, draw: random.Random, other: bytes) -> bytes:
    """Change the header's values and its length with them, or any bytes."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw, other)
    size = int.from_bytes(content[:8], "little")
    header = changed_json(content[8 : 8 + size], draw, other)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def safetensors_file(folder: Path) -> Target:
    """Whatever is read has the values that the safetensors library reads."""
    path = folder / "model.safetensors"

    def check(content: bytes) -> str:
        write_anew(path, content)
        checkpoint = open_checkpoint(hub.resolve(hub.parse_ref(path)))
        try:
            theirs = {(tuple(t["shape"]), bytes(t["data"])) for _, t in safetensors.deserialize(content)}
            for name, info in checkpoint.tensors.items():
                raw = np.empty(info.nbytes, np.uint8)
                checkpoint.read_elements(name, 0, raw)
                assert (info.shape, raw.tobytes()) in theirs, f"{name} has other values"
        except safetensors.SafetensorError as error:
            raise AssertionError(f"was read, though the library says: {error}") from None
        finally:
            checkpoint.close()
        return "read"

    return Target(_files(), _change, check)


def measurements(folder: Path) -> Target:
    """The record of a file of measurements is as in its metadata, or there is none."""
    path = folder / "fisher.safetensors"
    record = {"model": "org/a@abcdef", "sha256": json.dumps({"model.safetensors": "0" * 64})}
    seeds = [save({"mit.patch.weight": np.ones((2, 2), np.float32)}, record)]

    def check(content: bytes) -> str:
        write_anew(path, content)
        found = measured_model(path)
        if found is None:
            return "no record"
        assert isinstance(found.model, str), "a model without a name"
        assert all(isinstance(part, str) for pair in found.sha256.items() for part in pair), "hashes that are no texts"
        return "read"

    return Target(seeds, _change, check)
