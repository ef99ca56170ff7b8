"""Golden arrays that the systems' own code computed, and networks filled with the weights that it had."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from manifests import manifest, slot_map
from seeded import seeded
from torch import Tensor, nn

from hf_lwmm.networks.module_slots import slots_of

_FOLDER = Path(__file__).parent / "golden" / "reference"


@cache
def reference(system: str) -> dict[str, np.ndarray]:
    """Return the golden arrays of a system by name."""
    with np.load(_FOLDER / f"{system}.npz") as arrays:
        return dict(arrays)


def seeded_image(height: int, width: int) -> Tensor:
    """Return an image (1, 3, height, width) as a network gets it, already normalised."""
    values = np.random.default_rng(0).standard_normal((1, 3, height, width))
    return torch.from_numpy(values.astype(np.float32))


def zero_image(height: int, width: int) -> Tensor:
    """Return an image without contrast, on which the epsilon of the first normalisation shows."""
    return torch.zeros(1, 3, height, width)


def fill(model: nn.Module, system: str) -> nn.Module:
    """Fill a network with a system's seeded weights, slot by slot; each tensor of the network must get values."""
    source = slot_map(system)
    arrays = {name: seeded(name, shape, dtype).reshape(-1) for name, shape, dtype in manifest(system)}
    state = model.state_dict()
    for name, atoms in slots_of(model).atoms.items():
        for atom in atoms:
            given = source.slots[atom.slot]
            assert given.shape == atom.shape, name
            size = math.prod(atom.shape)
            values = torch.from_numpy(arrays[given.tensor][given.start : given.start + size])
            state[name].view(-1)[atom.start : atom.start + size] = values
    return model.eval()


def assert_equals_reference(ours: Tensor, theirs: np.ndarray, name: str = "") -> None:
    """Assert |a - b| <= 1e-4 |b| + 1e-4 std(b), ten times the difference that float64 makes."""
    values = ours.detach().numpy()
    assert values.shape == theirs.shape, name
    excess = np.abs(values - theirs) / (1e-4 * np.abs(theirs) + 1e-4 * theirs.std())
    assert excess.max() <= 1, f"{name}: {excess.max():.3g} times the tolerance"


def compare(system: str, arrays: dict[str, Tensor]) -> None:
    """Compare every golden array of a system; some are kept as the mean over channels and the first eight of these."""
    golden = dict(reference(system))
    for name, ours in arrays.items():
        if name in golden:
            assert_equals_reference(ours, golden.pop(name), name)
        else:
            assert_equals_reference(ours.mean(dim=1), golden.pop(f"{name}_mean"), f"{name}_mean")
            assert_equals_reference(ours[:, :8], golden.pop(f"{name}_c8"), f"{name}_c8")
    assert not golden
