"""Parameters that mean something only together: merged as a unit, kept as a unit, or refused, and never in part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import merge, plan
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import segformer
from torch import Tensor, nn
from torch.nn.utils import prune

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.errors import AlignmentError, CheckpointError, PlanError
from hf_lwmm.hub.refs import parse_ref
from hf_lwmm.planning.heads import kept_heads
from hf_lwmm.planning.plan import MergePlan, make_plan

pytestmark = pytest.mark.usefixtures("without_plots")

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


# --- adapters


def adapter(seed: int, stem: str = "base_model.model.attn.query", first: str = "lora_A", last: str = "lora_B") -> State:
    draw = drawn(seed)
    return {f"{stem}.{first}.weight": draw(4, 30), f"{stem}.{last}.weight": draw(40, 4), "head.weight": draw(60, 60)}


FACTORS = [
    ("lora_A", "lora_B"),
    ("lora_A.default", "lora_B.default"),
    ("lora_embedding_A", "lora_embedding_B"),
    ("lora_down", "lora_up"),
    ("to_q_lora.down", "to_q_lora.up"),
    ("hada_w1_a", "hada_w1_b"),
    ("lokr_w1", "lokr_w2_a"),
    ("ia3_l", "oft_blocks"),
    ("vera_lambda_b", "vera_lambda_d"),
    ("dora_scale", "lora_magnitude_vector"),
    ("lora.down", "lora.up"),
    ("lora.A", "lora.B"),
    ("proj_lora_a", "proj_lora_b"),
    ("LoRA_A", "LoRA_B"),
    ("loraA", "loraB"),
    ("linear_a_q", "linear_b_q"),  # SAMed
]


@pytest.mark.parametrize(("first", "last"), FACTORS)
def test_low_rank_factors_are_never_averaged(first: str, last: str, tmp_path: Path) -> None:
    one, two = (saved(tmp_path / str(seed), adapter(seed, "x.q", first, last), ".safetensors") for seed in (1, 2))
    plain = saved(tmp_path / "plain", {"head.weight": torch.ones(60, 60)}, ".safetensors")
    for models in ((one, two), (plain, two), (two, plain)):
        with pytest.raises(
            AlignmentError, match=rf"2 tensors \(x\.q\.{first}.*are part of an adapter.*merge_and_unload"
        ):
            plan(models, **HALF)


def test_numbered_adapters_in_a_file_of_their_own_are_refused(tmp_path: Path) -> None:
    state = {"w_a_000": torch.ones(4, 8), "w_b_000": torch.ones(8, 4), "w_a_001": torch.ones(4, 8)}
    one, two = (saved(tmp_path / name, {**state, "mask_decoder.x.weight": torch.ones(99, 99)}, ".pth") for name in "ab")
    with pytest.raises(AlignmentError, match=r"3 tensors \(w_a_000, w_b_000, \.\.\.\) are part of an adapter.*merge"):
        merge([one, two], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def adapter_folder(folder: Path, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    # What is saved whole beside the factors changes the base model, too, and is most of this file.
    save_file(adapter(seed), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def test_an_adapter_is_refused_whatever_is_in_it(run: Run, tmp_path: Path) -> None:
    one, two = (adapter_folder(tmp_path / name, seed) for seed, name in enumerate(("one", "two")))
    code, _, err = run("merge", one, two, "--output", "out")
    assert code == 1 and "one: 3 tensors (" in err and "merge_and_unload" in err and not (tmp_path / "out").exists()
    code, out, err = run("inspect", one)
    assert code == 0 and "3 tensors" in out + err and "part of an adapter" in out + err
    with pytest.raises(CheckpointError, match=r"one: cannot be run as a network: 3 tensors .*merge_and_unload"):
        hf_lwmm.load(one)


def test_an_adapter_beside_a_model_is_left_out_and_named(models: list[Path], tmp_path: Path) -> None:
    both = Path(shutil.copytree(models[1], tmp_path / "both"))
    adapter_folder(both, 1)
    alone, beside = (merge([models[0], each], output=tmp_path / "out", overwrite=True) for each in (models[1], both))
    assert alone.recipe.output == beside.recipe.output
    assert any("left out the adapter adapter_model.safetensors" in note for note in beside.notes)
    (both / "model.safetensors").rename(both / "network.safetensors")
    info = hf_lwmm.inspect(both)
    assert info.files == ("network.safetensors",) and "left out the adapter" in " ".join(info.notes)


# --- quantised weights


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
    "microscaling": lambda d: {"w_blocks": codes(d, 4, 4).view(torch.uint8), "w_scales": d(4, 1)},
}  # fmt: skip


def layer(scheme: str, seed: int) -> State:
    made = {f"net.fc.{name}": tensor for name, tensor in SCHEMES[scheme](drawn(seed)).items()}
    return made | {"net.fc.bias": drawn(seed)(4), "net.norm.weight": drawn(seed)(4)}


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


# --- ties


def tied(seed: int, apart: bool = False) -> State:
    draw = drawn(seed)
    words = draw(20, 8)
    return {
        "backbone.embed.weight": words, "backbone.fc.weight": draw(16, 16), "backbone.norm.weight": draw(8),
        "head.out.weight": draw(20, 8) if apart else words, "head.out.bias": draw(20),
    }  # fmt: skip


ALL_METHODS = ["layerwise", "isotropic", "slerp", "task-arithmetic", "ties", "dare", "breadcrumbs", "lines"]


@pytest.mark.parametrize("method", ALL_METHODS)
def test_tied_tensors_stay_equal_by_every_method(method: str, tmp_path: Path) -> None:
    base = tied(0) if method in ALL_METHODS[3:] else None
    decided, result = written(tmp_path, tied(1), tied(2), base=base, method=method)
    embed, head = (result[name] for name in ("backbone.embed.weight", "head.out.weight"))
    assert equal(embed, head) and not equal(head, tied(1)["head.out.weight"])
    positions = {each.slot: each.position for each in decided.alignment.shared}
    assert positions["backbone.embed.weight"] == positions["head.out.weight"] == 1
    assert decided.alignment.positions == 4 and decided.alignment.shared_parameters == 20 * 8 * 2 + 256 + 8 + 20


@pytest.mark.parametrize("missing", ["backbone.embed.weight", "head.out.weight"])
def test_a_tie_that_the_other_file_holds_once_is_merged_into_both_names(missing: str, tmp_path: Path) -> None:
    once = {name: tensor for name, tensor in tied(2).items() if name != missing}
    paths = [saved(tmp_path / "a", tied(1)), saved(tmp_path / "b", once, ".safetensors")]
    merge(paths, output=tmp_path / "out", **HALF)
    result = load_file(tmp_path / "out" / "model.safetensors")
    expected = (tied(1)["head.out.weight"] + tied(2)["head.out.weight"]) / 2
    for name in ("backbone.embed.weight", "head.out.weight"):
        torch.testing.assert_close(result[name], expected)


def test_a_tie_of_the_anchor_outlasts_a_model_without_it_and_is_named(tmp_path: Path) -> None:
    decided, result = written(tmp_path, tied(1), tied(2, apart=True), **HALF)
    assert equal(result["backbone.embed.weight"], result["head.out.weight"])
    torch.testing.assert_close(
        result["head.out.weight"], (tied(1)["head.out.weight"] + tied(2)["backbone.embed.weight"]) / 2
    )
    assert "ties head.out.weight to backbone.embed.weight" in " ".join(decided.alignment.notes)


def test_an_anchor_without_a_tie_keeps_both_tensors_of_their_own(tmp_path: Path) -> None:
    decided, result = written(tmp_path, tied(1, apart=True), tied(2), **HALF)
    assert not equal(result["backbone.embed.weight"], result["head.out.weight"])
    assert decided.alignment.positions == 5 and not decided.alignment.notes


@pytest.mark.parametrize("keep", ["head", "backbone.embed"])
def test_a_tie_is_kept_as_a_whole(keep: str, tmp_path: Path) -> None:
    _, result = written(tmp_path, tied(1), tied(2), keep=(keep,), **HALF)
    for name in ("backbone.embed.weight", "head.out.weight"):
        assert equal(result[name], tied(1)[name])
    assert not equal(result["backbone.fc.weight"], tied(1)["backbone.fc.weight"])


def test_tensors_that_share_memory_in_other_shapes_stay_the_anchors(tmp_path: Path) -> None:
    def turned(seed: int) -> State:
        words = drawn(seed)(6, 4)
        return {**body(seed), "embed.weight": words, "head.weight": words.T}

    decided, result = written(tmp_path, turned(1), turned(2), **HALF)
    assert all(equal(result[name], turned(1)[name]) for name in ("embed.weight", "head.weight"))
    assert "sharing memory in other shapes" in decided.alignment.notes[0]


def test_the_copy_of_the_anchors_own_file_has_its_ties(tmp_path: Path) -> None:
    paths = [saved(tmp_path / name, tied(seed)) for seed, name in enumerate("ab")]
    merge(paths, output=tmp_path / "out", format="torch", **HALF)
    merge(paths, output=tmp_path / "plain", **HALF)
    found = torch.load(tmp_path / "out" / "a.pth")
    assert found["head.out.weight"].data_ptr() == found["backbone.embed.weight"].data_ptr()
    expected = load_file(tmp_path / "plain" / "model.safetensors")
    assert all(equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("inner", [False, True])
def test_a_configuration_declares_ties_that_safetensors_cannot(inner: bool, tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        draw = drawn(seed)
        words = draw(20, 8)
        state = {"model.embed_tokens.weight": words, "model.fc.weight": draw(8, 8), "lm_head.weight": words.clone()}
        save_file(state, folder / "model.safetensors")
        config: dict[str, Any] = {"tie_word_embeddings": True}
        (folder / "config.json").write_text(json.dumps({"text_config": config} if inner else config))
        paths.append(folder)
    merge(paths, output=tmp_path / "out")
    result = load_file(tmp_path / "out" / "model.safetensors")
    assert equal(result["lm_head.weight"], result["model.embed_tokens.weight"])


# --- weights that a layer computes from several tensors


def reparametrised(how: str, seed: int) -> State:
    """A network with a layer whose weight torch computes, its state and its effective weight."""
    torch.manual_seed(seed)
    fc = nn.Linear(6, 5)
    if how == "weight norm":
        fc = nn.utils.parametrizations.weight_norm(fc)
    elif how == "old weight norm":
        fc = nn.utils.weight_norm(fc)
    elif how == "weight norm by column":
        fc = nn.utils.parametrizations.weight_norm(fc, dim=1)
    elif how == "spectral norm":
        fc = nn.utils.parametrizations.spectral_norm(fc)
    elif how == "old spectral norm":
        fc = nn.utils.spectral_norm(fc)
    elif how == "pruned":
        prune.random_unstructured(fc, "weight", 0.5)
    state = {f"net.{name}": tensor for name, tensor in fc.eval().state_dict().items()}
    fc(torch.zeros(1, 6))
    return {**body(seed), **state, "_": fc.weight.detach()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["weight norm", "old weight norm"])
def test_both_spellings_of_weight_norm_merge_by_the_product(how: str, tmp_path: Path) -> None:
    models = [reparametrised(how, seed) for seed in (1, 2)]
    effective = sum(model.pop("_") for model in models) / 2
    for model in models:  # the length of a direction says nothing
        name = next(name for name in model if name.endswith(("_v", "original1")))
        model[name] = 3 * model[name]
    decided, result = written(tmp_path, *models, **HALF)
    lengths, directions = (
        next(tensor for name, tensor in result.items() if name.endswith(ends))
        for ends in (("weight_g", "original0"), ("weight_v", "original1"))
    )
    torch.testing.assert_close(lengths * nn.functional.normalize(directions), effective)
    positions = {each.position for each in decided.alignment.shared if each.factors}
    assert len(positions) == 1 and not decided.alignment.notes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["spectral norm", "old spectral norm", "pruned", "weight norm by column"])
def test_weights_without_a_known_product_stay_the_anchors_as_a_whole(how: str, tmp_path: Path) -> None:
    one, two = (reparametrised(how, seed) for seed in (1, 2))
    for model in (one, two):
        del model["_"]
    decided, result = written(tmp_path, one, two, **HALF)
    parts = {name for name in one if name.startswith("net.")} - {"net.bias"}
    assert len(parts) >= 2 and all(equal(result[name], one[name]) for name in parts)
    assert not equal(result["net.bias"], one["net.bias"]) and not equal(result["stem.weight"], one["stem.weight"])
    assert "torch.nn.utils" in decided.alignment.notes[0]


OTHER_NAMES = {
    "bar": {"weight_bar": (8, 4, 3, 3), "weight_u": (8,), "weight_v": (36,)},
    "in place": {"weight": (8, 4, 3, 3), "weight_u": (8,), "weight_v": (36,)},
    "transposed": {"weight": (4, 8, 3, 3), "weight_u": (8,), "weight_v": (36,)},
    "u alone": {"weight": (8, 4, 3, 3), "u": (1, 8)},
    "with the singular value": {"weight": (8, 4), "u0": (1, 8), "sv0": (1,)},
    "recurrent": {"weight_hh_l0_orig": (8, 4), "weight_hh_l0_mask": (8, 4)},
    "masked in place": {"weight": (8, 4), "mask": (8, 4)},
    "weight and mask": {"weight": (8, 4), "weight_mask": (8, 4)},
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("how", OTHER_NAMES)
def test_other_codes_names_for_what_a_weight_is_computed_from_are_known(how: str, suffix: str, tmp_path: Path) -> None:
    one, two = (
        {**body(seed), "net.bias": drawn(seed)(8), **{f"net.{n}": drawn(seed)(*s) for n, s in OTHER_NAMES[how].items()}}
        for seed in (1, 2)
    )
    decided, result = written(tmp_path, one, two, suffix=suffix, **HALF)
    assert all(equal(result[f"net.{name}"], one[f"net.{name}"]) for name in OTHER_NAMES[how])
    assert not equal(result["net.bias"], one["net.bias"])
    assert f"{len(OTHER_NAMES[how])} tensors" in decided.alignment.notes[0]


def test_tensors_that_are_only_called_like_singular_vectors_and_masks_merge(tmp_path: Path) -> None:
    shapes = {"weight": (8, 4), "u": (5,), "v": (7, 7), "mask": (3,), "attn_mask": (8, 4), "down.weight": (3, 5)}
    one, two = ({**body(s), **{f"net.{n}": drawn(s)(*shape) for n, shape in shapes.items()}} for s in (1, 2))
    _, result = written(tmp_path, one, two, **HALF)
    for name in shapes:
        torch.testing.assert_close(result[f"net.{name}"], (one[f"net.{name}"] + two[f"net.{name}"]) / 2)


@pytest.mark.parametrize(
    ("down", "up"), [("down.weight", "up.weight"), ("A", "B"), ("a.weight", "b.weight"), ("U", "V")]
)
def test_low_rank_factors_under_plain_names_are_known_by_their_shapes(down: str, up: str, tmp_path: Path) -> None:
    one, two = (
        {**body(s), "q.weight": drawn(s)(8, 6), f"q.{down}": drawn(s)(2, 6), f"q.{up}": drawn(s)(8, 2)} for s in (1, 2)
    )
    with pytest.raises(AlignmentError, match=rf"2 tensors \(q\.{down}, q\.{up}\) are part of an adapter"):
        written(tmp_path, one, two, **HALF)
    for model in (one, two):  # of another shape than the weight, they are layers as any others
        model[f"q.{up}"] = torch.ones(9, 2)
    written(tmp_path, one, two, **HALF)


FACTORISED: dict[str, dict[str, tuple[int, ...]]] = {
    "singular vectors": {"weight_u": (8, 2), "weight_v": (2, 6)},
    "in columns": {"U": (8, 2), "S": (2,), "V": (6, 2)},
    "as layers": {"U.weight": (8, 2), "V.weight": (2, 6)},
    "as projections": {"q_u_proj.weight": (8, 2), "q_v_proj.weight": (2, 6)},
    "as linear layers": {"ALinear.weight": (8, 2), "BLinear.weight": (2, 6)},
    "of a convolution": {"u.weight": (8, 2, 1, 1), "v.weight": (2, 6, 3, 3)},
    "stacked": {"A": (3, 2, 6), "B": (3, 8, 2)},
    "left and right": {"W_left": (8, 2), "W_right": (2, 6)},
    "tensorly": {"weight.core": (2, 2), "weight.factors.factor_0": (8, 2), "weight.factors.factor_1": (6, 2)},
    "length and direction": {"g": (8,), "v": (8, 6)},
}


@pytest.mark.parametrize("how", FACTORISED)
def test_factors_without_a_weight_stay_the_anchors_together(how: str, tmp_path: Path) -> None:
    shapes = {f"net.{name}": shape for name, shape in FACTORISED[how].items()}
    one, two = (
        {**body(s), "net.bias": drawn(s)(8), **{name: drawn(s)(*shape) for name, shape in shapes.items()}}
        for s in (1, 2)
    )
    decided, result = written(tmp_path, one, two, **HALF)
    assert all(equal(result[name], one[name]) for name in shapes) and not equal(result["net.bias"], one["net.bias"])
    assert f"{len(shapes)} tensors (net." in decided.alignment.notes[0]


ORDINARY: dict[str, dict[str, tuple[int, ...]]] = {
    "relative attention": {"pos_bias_u": (8, 128), "pos_bias_v": (8, 128)},
    "state space": {"A": (16, 4), "B": (4, 16), "C": (16, 4)},
    "gate": {"u.weight": (8, 2), "v.weight": (8, 2)},
    "branches": {"left.weight": (2, 8), "right.weight": (8, 2)},
    "bottleneck": {"down.weight": (2, 8), "up.weight": (8, 2)},
    "latent attention": {"q_a_proj.weight": (2, 8), "q_b_proj.weight": (8, 2)},
    "gated attention": {"u_proj.weight": (8, 2), "v_proj.weight": (8, 2)},
    "square": {"A": (8, 8), "B": (8, 8)},
}


@pytest.mark.parametrize("how", ORDINARY)
def test_what_is_only_called_like_factors_merges(how: str, tmp_path: Path) -> None:
    one, two = ({**body(s), **{f"net.{n}": drawn(s)(*shape) for n, shape in ORDINARY[how].items()}} for s in (1, 2))
    decided, _ = written(tmp_path, one, two, **HALF)
    assert {each.slot for each in decided.alignment.shared} == one.keys() and not decided.alignment.notes


def test_a_lone_direction_is_a_weight_like_any_other_but_not_beside_a_weight_norm(tmp_path: Path) -> None:
    one, two = ({**body(seed), "net.weight_v": drawn(seed)(5, 6)} for seed in (1, 2))
    _, result = written(tmp_path, one, two, **HALF)
    torch.testing.assert_close(result["net.weight_v"], (one["net.weight_v"] + two["net.weight_v"]) / 2)
    decided, result = written(tmp_path, one, {**two, "net.weight_g": torch.ones(5, 1)}, **HALF)
    assert equal(result["net.weight_v"], one["net.weight_v"])
    [unshared] = (each for each in decided.alignment.unshared if each.model == 0)
    assert unshared.reason == "weight-normalised in model1.pth"


def test_a_base_with_one_factor_alone_leaves_both_to_the_anchor(tmp_path: Path) -> None:
    factors = [{"net.weight_g": drawn(seed)(5, 1), "net.weight_v": drawn(seed)(5, 6)} for seed in range(3)]
    del factors[0]["net.weight_g"]
    base, one, two = ({**body(seed), **each} for seed, each in enumerate(factors))
    _, result = written(tmp_path, one, two, base=base, method="task-arithmetic")
    assert all(equal(result[name], one[name]) for name in ("net.weight_g", "net.weight_v"))


# --- all of them at once


PARTS: dict[str, Callable[[int], State]] = {
    **{scheme: lambda seed, scheme=scheme: SCHEMES[scheme](drawn(seed)) for scheme in SCHEMES},
    "weight norm": lambda seed: {"weight_g": drawn(seed)(4, 1), "weight_v": drawn(seed)(4, 3)},
    "spectral norm": lambda seed: {
        "weight_orig": drawn(seed)(4, 3), "weight_u": drawn(seed)(4), "weight_v": drawn(seed)(3),
    },
    "pruned": lambda seed: {"weight_orig": drawn(seed)(4, 3), "weight_mask": drawn(seed)(4, 3).sign().relu()},
    "tied": lambda seed: dict.fromkeys(("weight", "again"), drawn(seed)(4, 3)),
    "tied in part": lambda seed: dict.fromkeys(("weight", "again") if seed % 2 else ("weight",), drawn(seed)(4, 3)),
    "complex": lambda seed: {"freqs": torch.view_as_complex(drawn(seed)(4, 2))},
    "counter": lambda seed: {"num_batches_tracked": torch.tensor(seed)},
    "plain": lambda seed: {"weight": drawn(seed)(4, 3)},
}  # fmt: skip


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[str], State, State]:
    """The kinds of the first model's layers, and two models that may differ in kind at a layer."""
    kinds = draw(st.lists(st.sampled_from(list(PARTS)), min_size=1, max_size=5))
    others = [draw(st.one_of(st.just(kind), st.sampled_from(list(PARTS)))) for kind in kinds]
    states = []
    for seed, each in enumerate((kinds, others), 1):
        layers = {f"l{i}.{n}": tensor for i, kind in enumerate(each) for n, tensor in PARTS[kind](seed).items()}
        states.append(body(seed) | layers)
    return kinds, states[0], states[1]


@settings(max_examples=60)
@given(
    pair=pairs(),
    method=st.sampled_from(["layerwise", "isotropic", "slerp", "ties", "dare"]),
    share=st.sampled_from(["all", "any"]),
    dtype=st.sampled_from([None, "float16"]),
)
def test_no_group_is_merged_in_part(
    pair: tuple[list[str], State, State],
    method: str,
    share: str,
    dtype: str | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each group is the anchor's in every byte, or all of it is merged; ties stay ties; everything counts."""
    kinds, one, two = pair
    base = body(0) | {f"l{i}.weight": drawn(0)(4, 3) for i, kind in enumerate(kinds) if kind in ("plain", "tied")}
    folder, based = tmp_path_factory.mktemp("groups"), base if method in ("ties", "dare") else None
    decided, result = written(folder, one, two, base=based, method=method, share=share, dtype=dtype)
    shared = {each.slot for each in decided.alignment.shared}
    weights = {name for name in one if not name.endswith("num_batches_tracked")}
    total, merged = (sum(tensor.numel() for name, tensor in one.items() if name in of) for of in (weights, shared))
    assert (decided.alignment.shared_parameters, decided.alignment.anchor_parameters) == (merged, total)
    assert result.keys() == one.keys()
    for i, kind in enumerate(kinds):
        names = [name for name in one if name.startswith(f"l{i}.")]
        assert shared.issuperset(names) or shared.isdisjoint(names)
        if "tied" in kind:
            assert len({result[name].numpy().tobytes() for name in names}) == 1
        elif kind in SCHEMES or kind in ("spectral norm", "pruned", "complex", "counter"):
            assert all(equal(result[name], one[name]) for name in names)
