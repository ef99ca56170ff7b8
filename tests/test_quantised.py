"""Quantised weights and what scales them: kept as a unit, or refused, and never in part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from calls import merge
from conftest import Run
from grouped import HALF, SCHEMES, State, adapter, body, codes, drawn, equal, layer, saved, written
from safetensors.torch import load_file, save_file
from tiny import segformer

from hf_lwmm.errors import AlignmentError, PlanError
from hf_lwmm.planning.heads import kept_heads

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_and_their_scales_stay_the_anchors_together(scheme: str, tmp_path: Path) -> None:
    one, two = ({**body(seed), **layer(scheme, seed)} for seed in (1, 2))
    names = [f"net.fc.{name}" for name in SCHEMES[scheme](drawn(1))]
    for knobs in ({}, {"dtype": "float16", "share": "any"}):
        decided, result = written(tmp_path, one, two, **HALF, **knobs)
        assert all(equal(result[name], one[name]) for name in names)
        shared = {each.slot for each in decided.alignment.shared}
        assert shared == one.keys() - set(names)  # what is beside them is merged
        [note] = decided.alignment.notes
        assert note.startswith("model0.pth: ") and "quantised. Save the model in floats first" in note
        total, kept = (sum(tensor.numel() for name, tensor in one.items() if name in of) for of in (one, names))
        assert decided.alignment.anchor_parameters == total
        assert decided.alignment.shared_parameters == total - kept and f"({kept / total:.1%} of" in note


def test_names_of_tensors_reach_a_terminal_without_its_own_signs(run: Run, tmp_path: Path) -> None:
    name = "\x1b[31m\n" + 200 * "x"
    states = [{**body(i), name: codes(drawn(i), 2, 2).view(torch.float8_e5m2)} for i in (1, 2)]
    paths = [saved(tmp_path / f"m{i}", state) for i, state in enumerate(states)]
    code, _, err = run("merge", *paths, "--output", "out")
    assert code == 0 and "1 tensor (\\x1b[31m\\n" in err and "\x1b" not in err and 90 * "x" not in err


def test_a_scale_beside_a_module_of_codes_and_codes_of_one_file_without_modules_belong_together(tmp_path: Path) -> None:
    def flat(seed: int) -> State:
        draw = drawn(seed)
        return {
            **body(seed), "net.fc.weight": codes(draw, 4, 8).short(), "net.fc_scale": draw(4), "net.fc2_gain": draw(4),
            "layer1_weight": codes(draw, 4, 8).short(), "layer1_s": draw(4),
            "layer2_weight": draw(4), "layer2_s": draw(4),
        }  # fmt: skip

    one, two = flat(1), flat(2)
    decided, result = written(tmp_path, one, two, **HALF)
    kept = {"net.fc.weight", "net.fc_scale", "layer1_weight", "layer1_s"}
    assert one.keys() - {each.slot for each in decided.alignment.shared} == kept
    assert all(equal(result[name], one[name]) for name in kept)


def quantiser(how: str, seed: int) -> State:
    """What a float layer's quantiser has, in several codes' names."""
    draw = drawn(seed)
    zero, on = torch.tensor([40 * seed], dtype=torch.int32), torch.ones(1, dtype=torch.uint8)
    made: dict[str, State] = {
        "torch": {
            "weight_fake_quant.scale": draw(1), "weight_fake_quant.zero_point": zero,
            "weight_fake_quant.fake_quant_enabled": on, "weight_fake_quant.activation_post_process.min_val": draw(),
            "weight_fake_quant.activation_post_process.max_val": draw(),
        },
        "learned": {"quant.scale": draw(1), "quant.zero_point": draw(1)},
        "BRECQ": {"weight_quantizer.delta": draw(4, 1), "weight_quantizer.zero_point": draw(4, 1)},
        "in the layer": {"weight_scale": draw(4, 1), "weight_zero_point": draw(4, 1)},
        "histogram": {"obs.min_val": draw(), "obs.max_val": draw(), "obs.histogram": draw(16)},
    }  # fmt: skip
    return {f"net.fc.{name}": tensor for name, tensor in made[how].items()}


@pytest.mark.parametrize("how", ["torch", "learned", "BRECQ", "in the layer", "histogram"])
def test_a_quantiser_of_floats_stays_the_anchors_as_a_whole(how: str, tmp_path: Path) -> None:
    plain = [{**body(seed), "net.fc.weight": drawn(seed)(4, 8), "net.fc.bias": drawn(seed)(4)} for seed in (1, 2)]
    one, two = ({**state, **quantiser(how, seed)} for seed, state in enumerate(plain, 1))
    decided, result = written(tmp_path, one, two, **HALF)
    kept = quantiser(how, 1).keys()
    assert all(equal(result[name], one[name]) for name in kept)
    assert {each.slot for each in decided.alignment.shared} == plain[0].keys()
    [note] = decided.alignment.notes
    assert f"{len(kept)} tensors (" in note and "are of quantisers" in note and not kept_heads(decided)


def test_masks_and_places_beside_scales_are_no_codes(tmp_path: Path) -> None:
    def attention(seed: int) -> State:
        numbers = torch.ones(4, 8, dtype=torch.uint8)
        return {
            "convolution.attn.logit_scale": drawn(seed)(4),
            "convolution.attn.causal_mask": numbers,
            "convolution.attn.relative_position_index": numbers,
        }

    decided, _ = written(tmp_path, *({**body(seed), **attention(seed)} for seed in (1, 2)), **HALF)
    assert (
        "convolution.attn.logit_scale" in {each.slot for each in decided.alignment.shared}
        and not decided.alignment.notes
    )


def test_a_model_with_scales_alone_is_none_with_codes(tmp_path: Path) -> None:
    one, two = ({**body(seed), "norm.scale": drawn(seed)(4), "norm.zero": drawn(seed)(4)} for seed in (1, 2))
    decided, _ = written(tmp_path, one, two, **HALF)
    assert decided.alignment.shared_parameters == decided.alignment.anchor_parameters and not decided.alignment.notes


@pytest.mark.parametrize("quantised", ["both", "anchor", "other"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_models_of_mostly_quantised_weights_are_refused_with_the_remedy(
    quantised: str, suffix: str, run: Run, tmp_path: Path
) -> None:
    states = [body(1), body(2)]
    for state in states[quantised == "other" : 2 - (quantised == "anchor")]:
        state["stem.weight"] = state["stem.weight"].to(torch.float8_e4m3fn)
        state["stem.weight_scale"] = torch.ones(40, 1)
    paths = [saved(tmp_path / f"m{i}", state, suffix) for i, state in enumerate(states)]
    code, _, err = run("merge", *paths, "--output", "out")
    name = f"m{int(quantised == 'other')}{suffix}"
    assert code == 1 and not (tmp_path / "out").exists()
    assert (
        "cannot be merged" in err and f"{name}: " in err and "stem.weight" in err and "Save the model in floats" in err
    )


def test_a_network_of_8_bit_numbers_alone_is_no_merge(tmp_path: Path) -> None:
    for dtype in (torch.float8_e4m3fn, torch.int8):
        one, two = ({name: tensor.to(dtype) for name, tensor in body(seed).items()} for seed in (1, 2))
        with pytest.raises(AlignmentError, match=r"Of the 1,360 weights of .*, 1,360 cannot be merged(.|\n)*in floats"):
            written(tmp_path, one, two, **HALF)


def test_a_quantised_base_or_an_adapter_is_no_base(tmp_path: Path) -> None:
    quantised = {**body(0), "stem.weight": body(0)["stem.weight"].to(torch.float8_e4m3fn)}
    for base, words in ((quantised, "stem.weight.*quantised"), (adapter(0), "part of an adapter")):
        with pytest.raises(PlanError, match=rf"base\.pth: cannot be the base: .*{words}"):
            written(tmp_path, body(1), body(2), base=base, method="task-arithmetic")


def quantised_segformer(folder: Path, seed: int) -> Path:
    segformer(folder, seed)
    state = load_file(folder / "model.safetensors")
    for name in [name for name, tensor in state.items() if tensor.ndim == 2]:
        state[name + "_scale"] = state[name].abs().amax(1, keepdim=True) / 400
        state[name] = (state[name] / state[name + "_scale"]).to(torch.float8_e4m3fn)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_known_layouts_keep_scales_with_codes_and_run_as_no_network(bare: Path, run: Run, tmp_path: Path) -> None:
    one, two = (quantised_segformer(tmp_path / f"m{seed}", seed) for seed in (1, 2))
    code, _, err = run("merge", one, two, "--output", "out")
    assert code == 1 and "m1: 56 tensors (" in err and "quantised" in err and "integers" not in err
    code, _, err = run("predict", one, bare, "--output", "pictures")
    assert code == 1 and "m1: cannot be run as a network: 56 tensors (" in err and "Save the model in floats" in err


def test_a_scheme_of_quantisation_is_not_published_with_floats(models: list[Path], tmp_path: Path) -> None:
    config = json.loads((models[0] / "config.json").read_text())
    stated = config | {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}
    (models[0] / "config.json").write_text(json.dumps(stated))
    result = merge(models, output=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written.keys() == config.keys() and any("quantization_config of its" in note for note in result.notes)
