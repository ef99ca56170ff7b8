"""Weights that depend on a tensor's name and shape alone, so that two programs can make the same ones."""

from __future__ import annotations

import math
import zlib

import numpy as np


def seeded(name: str, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return float32 values of the size that such a parameter usually has, and zeros for counters."""
    if "int" in dtype:
        return np.zeros(shape, np.int64)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf.endswith("running_var"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf.endswith("running_mean"):
        scale = 0.1
    elif leaf.endswith("bias"):
        scale = 0.02
    elif len(shape) < 2:  # a normalisation's scale
        return generator.uniform(0.8, 1.2, shape).astype(np.float32)
    else:
        return np.asarray(generator.standard_normal(shape) / math.sqrt(math.prod(shape[1:])), np.float32)
    return np.asarray(scale * generator.standard_normal(shape), np.float32)
