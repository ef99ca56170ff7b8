"""Small models, and what a merge makes of them."""

from __future__ import annotations

from pathlib import Path

import calls
import numpy as np
from manifests import Arrays, write
from safetensors.numpy import load_file


def tiny(seed: int, classes: int = 3) -> Arrays:
    """A network that no layout knows: two blocks and a classifier."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for block in (1, 2, 10):
        arrays[f"block.{block}.conv.weight"] = draw.standard_normal((4, 4, 3, 3)).astype(np.float32)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"block.{block}.bn.{leaf}"] = draw.uniform(0.5, 1.5, 4).astype(np.float32)
        arrays[f"block.{block}.bn.num_batches_tracked"] = np.array(100 * seed, np.int64)
    arrays["classifier.weight"] = draw.standard_normal((classes, 4)).astype(np.float32)
    return arrays


def merged(tmp_path: Path, *models: Arrays, **options: object) -> Arrays:
    """What a merge is made of, under the names in the anchor's file."""
    options = {"format": "safetensors", **options}
    paths = [write(tmp_path / f"model{i}.safetensors", model) for i, model in enumerate(models)]
    calls.merge(paths, output=tmp_path / "out", overwrite=True, **options)
    return load_file(tmp_path / "out" / "model.safetensors")


def write_header(path: Path, system: str) -> Path:
    """A file with the system's names and shapes, all zeros, taking no disk space."""
    from manifests import manifest

    from hf_lwmm.checkpoints.safetensors_file import TensorInfo, encode_header

    infos = {n: TensorInfo("I64" if "int" in d else "F32", s) for n, s, d in manifest(system)}
    head, _ = encode_header(infos)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(info.nbytes for info in infos.values()))
    return path
