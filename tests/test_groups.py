"""Parameters that mean something only together: merged as a unit, kept as a unit, or refused, and never in part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import merge
from grouped import HALF, SCHEMES, State, body, drawn, equal, saved, written
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

pytestmark = pytest.mark.usefixtures("without_plots")


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
