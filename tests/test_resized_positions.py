"""Position embeddings of other grids, and relative positions of other windows: kept, or interpolated when asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import calls
import numpy as np
import pytest
import timm
import torch
from manifests import to_slots
from safetensors.numpy import load_file
from torch import nn
from vits import beit, beit_of_timm, clip, dinov3, drawn, merged, plain, stored

from hf_lwmm.errors import PlanError
from hf_lwmm.recipes.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("without_plots")


def test_position_embeddings_of_another_grid_stay_the_anchors(tmp_path: Path) -> None:
    anchor = plain(0)
    arrays, result = merged(tmp_path, anchor, plain(1, img_size=48))
    own = anchor.state_dict()["pos_embed"].numpy()
    assert (arrays["pos_embed"][:, 1:] == own[:, 1:]).all() and (arrays["pos_embed"][:, 0] != own[:, 0]).all()
    (note,) = [each for each in result.warnings if "position" in each]
    assert "6 x 6 patches" in note and "4 x 4" in note and "--resize-position" in note
    planned = calls.lwmm("plan", *(tmp_path / f"model{i}" / "model.safetensors" for i in (0, 1)))
    assert planned.exit_code == 0 and f"Warning: {note}" in planned.stderr


@pytest.mark.parametrize(
    ("anchor", "other", "side"),
    [
        (plain, lambda seed: plain(seed, img_size=48), 4),
        (lambda seed: plain(seed, img_size=48), plain, 6),
        (lambda seed: drawn(clip(), seed), lambda seed: plain(seed, img_size=24, pre_norm=True), 4),
        (plain, lambda seed: plain(seed, patch_size=4), 4),
    ],
)
def test_position_embeddings_are_interpolated_as_torch_does_it(
    anchor: Any, other: Any, side: int, tmp_path: Path
) -> None:
    first, second = anchor(0), other(1)
    arrays, result = merged(tmp_path, first, second, resize_position=True)
    grid = second.state_dict()["pos_embed"][:, 1:]
    old = int(grid.shape[1] ** 0.5)
    square = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(square, (side, side), mode="bicubic", align_corners=False)
    theirs = wanted.permute(0, 2, 3, 1).reshape(1, side * side, -1).numpy()
    mine = to_slots(load_file(tmp_path / "model0" / "model.safetensors"))["vit.embed.position"]
    assert np.allclose(to_slots(arrays)["vit.embed.position"], (mine + theirs) / 2, atol=1e-6)
    assert any(f"{old} x {old} patches are interpolated (bicubic) to the anchor's {side} x {side}" in each
               for each in result.warnings)  # fmt: skip


def test_the_card_says_what_was_interpolated(tmp_path: Path) -> None:
    merged(tmp_path, plain(0), plain(1, img_size=48), resize_position=True)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "6 x 6 patches are interpolated (bicubic) to the anchor's 4 x 4" in card and "--resize-position" in card
    assert load_recipe(tmp_path / "out" / "hf_lwmm.yaml").knobs.resize_position


def swin(window: int, seed: int) -> nn.Module:
    sizes = {"img_size": 64, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "num_classes": 0}
    return drawn(timm.models.SwinTransformer(**sizes, window_size=window, always_partition=True), seed)


RELATIVE = {
    "Swin": (swin(2, 0), swin(4, 1), 3, ".attn.bias_table", 0, "windows of 4 x 4.* 2 x 2"),
    "Swin, larger": (swin(4, 0), swin(2, 1), 7, ".attn.bias_table", 0, "windows of 2 x 2.* 4 x 4"),
    "BEiT": (
        *(drawn(beit(), 0), drawn(beit_of_timm(img_size=48), 1), 7),
        *(".relative_position", 3, "windows of 6 x 6.* 4 x 4"),
    ),
}


@pytest.mark.parametrize("kin", RELATIVE)
def test_relative_positions_are_interpolated_as_torch_does_it(kin: str, tmp_path: Path) -> None:
    first, second, side, ending, behind, note = RELATIVE[kin]
    arrays, result = merged(tmp_path, first, second, resize_position=True)
    mine, theirs = (to_slots(load_file(stored(network, tmp_path / "again"))) for network in (first, second))
    mean = to_slots(arrays)
    tables = [slot for slot in mine if slot.endswith(ending)]
    assert len(tables) > 1
    for slot in tables:
        grid = torch.from_numpy(theirs[slot][: len(theirs[slot]) - behind])
        old = int(len(grid) ** 0.5)
        square = grid.T.reshape(1, -1, old, old)
        wanted = nn.functional.interpolate(square, (side, side), mode="bicubic").reshape(-1, side**2).T.numpy()
        other = np.concatenate([wanted, theirs[slot][len(grid) :]])
        assert np.allclose(mean[slot], (mine[slot] + other) / 2, atol=1e-6)
    assert any(re.search(f"{note} .* and {len(tables) - 1} more", each) for each in result.warnings)


@pytest.mark.parametrize("kin", ["Swin", "BEiT"])
def test_relative_positions_of_another_window_stay_the_anchors_with_one_note(kin: str, tmp_path: Path) -> None:
    first, second, _, ending, _, note = RELATIVE[kin]
    arrays, result = merged(tmp_path, first, second)
    mine, mean = to_slots(load_file(tmp_path / "model0" / "model.safetensors")), to_slots(arrays)
    assert all((mean[slot] == mine[slot]).all() for slot in mine if slot.endswith(ending))
    (found,) = [each for each in result.warnings if "relative positions" in each]
    assert re.search(note, found) and "anchor's are kept" in found and "--resize-position" in found


def test_interpolating_needs_a_grid(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"has no position embeddings of a square grid.*leave it out"):
        merged(tmp_path, drawn(dinov3()), drawn(dinov3(), 1), resize_position=True)
