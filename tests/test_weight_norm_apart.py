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


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_both_spellings_of_weight_norm_have_the_same_depth_order(tmp_path: Path) -> None:
    weights = []
    for norm in (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm):
        for seed in (1, 2):
            torch.manual_seed(seed)
            model = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), norm(nn.Conv2d(8, 4, 1)))
            save_file(model.state_dict(), tmp_path / f"{seed}.safetensors")
        plan = hf_lwmm.plan([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
        weights.append(
            {each.slot.partition(".parametrizations")[0]: plan.slot_weights(each) for each in plan.alignment.shared}
        )
    old, new = weights
    assert new["2"] == old["2.weight_g"] == {0: 0.875, 1: 0.125} and new["2.bias"] == old["2.bias"] == {0: 1, 1: 0}
