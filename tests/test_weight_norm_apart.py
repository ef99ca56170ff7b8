"""A layer that one model has weight-normalised and the other plain stays the anchor's, and the plan says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import hf_lwmm


@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "parametrised"]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_layer_that_one_model_alone_has_weight_normalised_is_named(norm: Any, tmp_path: Path) -> None:
    for name in ("plain", "normed"):
        torch.manual_seed(len(name))
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4))
        if name == "normed":
            for layer in model[1:]:
                norm(layer)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    plain, normed = tmp_path / "plain.safetensors", tmp_path / "normed.safetensors"
    for models in ([plain, normed], [normed, plain]):
        (note,) = (each for each in hf_lwmm.plan(models).alignment.notes if "weight-normalised" in each)
        assert "1.weight and 1 more weight-normalised, plain.safetensors as it is used: such layers stay" in note
        assert "remove_weight_norm" in note
    assert not any("normal" in each for each in hf_lwmm.plan([plain, plain]).alignment.notes)
    assert not any("normal" in each for each in hf_lwmm.plan([normed, normed]).alignment.notes)
