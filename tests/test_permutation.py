"""Units of networks are matched, and moving them leaves what a network computes unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import calls
import numpy as np
import pytest
from conftest import Run
from manifests import Arrays, stored, write
from merged import merged, tiny
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm import Knobs, hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.errors import PlanError
from hf_lwmm.hub.refs import parse_ref
from hf_lwmm.planning.permutation import Matching, axes_of, permuted_checkpoint

pytestmark = pytest.mark.usefixtures("without_plots")

NARROW = {"nvlabs_segformer_b0": 1, "advent_deeplabv2_r101_multi": 16, "hrda_mitb5": 16}


def shuffled(tmp_path: Path, system: str, model: Arrays, seed: int) -> tuple[Arrays, Matching]:
    """The same network with its units in other places."""
    source = open_checkpoint(hub.resolve(parse_ref(write(tmp_path / "source.safetensors", model))))
    axes = axes_of(source)
    draw = np.random.default_rng(seed)
    sizes = {where.rows: source.slot_map.slots[slot].shape[0] for slot, where in axes.items() if where.rows}
    matching = Matching({group: draw.permutation(size) for group, size in sizes.items()})
    moved = permuted_checkpoint(source, matching)
    arrays = {}
    for name, array in model.items():
        raw = np.empty(array.nbytes, np.uint8)
        moved.reader.read(name, 0, memoryview(raw))  # type: ignore[union-attr]
        arrays[name] = raw.view(array.dtype).reshape(array.shape)
    return arrays, matching


def test_a_note_says_whether_permutation_found_anything_to_move(run: Run, tmp_path: Path) -> None:
    model = stored("nvlabs_segformer_b0", 1)
    paths = [write(tmp_path / "a.safetensors", model), write(tmp_path / "b.safetensors", model)]
    code, _, err = run("merge", *paths, "--method", "permutation", "--output", "out")
    assert code == 0 and "b.safetensors: its units match the anchor's where they are, and none changes places" in err
    assert str(Matching({"stage": np.array([1, 0, 2, 3])})) == "50.0% of its units change places"


def test_statistics_that_units_take_along_are_not_warned_of(tmp_path: Path) -> None:
    model = stored("nvlabs_segformer_b0", 1)
    other, _ = shuffled(tmp_path, "", model, 2)
    paths = [write(tmp_path / "a.safetensors", model), write(tmp_path / "b.safetensors", other)]
    keeping = Knobs(bn_stats="anchor")
    assert "BatchNorm" in " ".join(hf_lwmm.plan(paths, knobs=keeping).warnings)
    moving = replace(keeping, permute=True)
    warned = hf_lwmm.plan(paths, knobs=moving).warnings
    assert set(warned) <= set(hf_lwmm.merge(paths, knobs=moving, output=tmp_path / "out").warnings)
    assert "BatchNorm" not in " ".join(warned)


@pytest.mark.parametrize("system", NARROW)
def test_shuffled_units_find_their_places_again(system: str, tmp_path: Path) -> None:
    model = stored(system, 1, shrink=NARROW[system])
    other, matching = shuffled(tmp_path, system, model, 2)
    assert matching.moved > 0.9
    same = sum(np.array_equal(model[name], other[name]) for name in model if model[name].dtype == np.float32)
    assert same < len(model) / 3
    result = merged(tmp_path, model, other, method="permutation")
    assert all(np.array_equal(result[name], model[name]) for name in model)
    plain = merged(tmp_path, model, other, method="isotropic")
    assert not all(np.array_equal(plain[name], model[name]) for name in model)
    layerwise = merged(tmp_path, model, other, permute=True)
    assert all(np.array_equal(layerwise[name], model[name]) for name in model)


def test_units_are_matched_by_what_both_models_have(tmp_path: Path) -> None:
    multi = stored("advent_deeplabv2_r101_multi", 1, shrink=16)
    other, _ = shuffled(tmp_path, "", multi, 2)
    single = {name: array for name, array in other.items() if not name.startswith("layer5.")}
    result = merged(tmp_path, multi, multi, single, method="permutation", share="any")
    assert all(np.array_equal(result[name], multi[name]) for name in multi)


@pytest.mark.parametrize("order", [slice(3), slice(None, None, -1)], ids=["fewer", "reversed"])
def test_units_are_matched_though_rows_are_matched_by_label(order: slice, tmp_path: Path) -> None:
    model = stored("transformers_segformer_b0_hub_legacy", 1, shrink=8)
    model["decode_head.classifier.weight"] *= 100  # so that rows of other classes would outweigh all else
    names = [f"class {row}" for row in range(len(model["decode_head.classifier.bias"]))]
    other, _ = shuffled(tmp_path, "", model, 2)
    other |= {name: np.ascontiguousarray(other[name][order]) for name in other if ".classifier." in name}
    folders = []
    for arrays, labels in ((model, names), (other, names[order])):
        folders.append(write(tmp_path / str(len(folders)) / "model.safetensors", arrays).parent)
        (folders[-1] / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    calls.merge(folders, output=tmp_path / "out", method="permutation", head="by-label")
    result = load_file(tmp_path / "out" / "model.safetensors")
    assert all(np.array_equal(result[name], model[name]) for name in model)


def test_permuting_leaves_what_a_network_computes_unchanged(tmp_path: Path) -> None:
    import torch
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    small = SegformerConfig(
        depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16
    )
    image = torch.randn(1, 3, 64, 64).double()
    for network in (
        SegformerForSemanticSegmentation(small),
        ResNet(BasicBlock, [1, 2, 1, 1]),
        ResNet(Bottleneck, [1, 2, 1, 1]),
    ):
        network.double().eval()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        other, matching = shuffled(tmp_path, "", model, 3)
        assert matching.moved > 0.8
        before = network(image)
        network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in other.items()})
        after = network(image)
        first, second = (out if isinstance(out, torch.Tensor) else out.logits for out in (before, after))
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def test_permuting_is_refused_where_it_has_no_meaning(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="permuting knows MiT and ResNet, not unknown network"):
        merged(tmp_path, tiny(1), tiny(2), method="permutation")
    first, second = (stored("nvlabs_segformer_b0", seed, shrink=8) for seed in (1, 2))
    base = write(tmp_path / "base.safetensors", first)
    with pytest.raises(PlanError, match="--permute moves units away from where the base"):
        merged(tmp_path, first, second, base=base, method="ties", permute=True)
