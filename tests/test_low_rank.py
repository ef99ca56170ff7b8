"""Low-rank factors and adapters: pairs that mean something only by their product."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from calls import merge, plan
from conftest import Run
from grouped import HALF, adapter, body, drawn, equal, saved, written
from safetensors.torch import save_file

import hf_lwmm
from hf_lwmm.errors import AlignmentError, CheckpointError

pytestmark = pytest.mark.usefixtures("without_plots")

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
