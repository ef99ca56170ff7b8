"""Only what transformers can load becomes a repository for it; of anything else, merge and card say why it is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Run
from safetensors.torch import load_file
from small_networks import network
from torch import Tensor

pytestmark = pytest.mark.usefixtures("without_plots")

State = dict[str, Tensor]


def without(*parts: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


def narrower(state: State) -> State:
    """A block whose MLP is pruned to 50 channels of 96."""
    mlp = "segformer.stages.2.blocks.0.mlp."
    cut = {name: state[name][:50] for name in state if name.startswith((f"{mlp}fc1", f"{mlp}dwconv"))}
    return {**state, **cut, f"{mlp}fc2.weight": state[f"{mlp}fc2.weight"][:, :50]}


def grouped(state: State) -> State:
    return {**state, "layer2.0.conv2.weight": state["layer2.0.conv2.weight"][:, :8]}


def models(name: str, change: Callable[[State], State], folder: Path) -> list[Path]:
    """Files of two networks, changed alike."""
    paths = [folder / f"{name}{seed}.pth" for seed in (1, 2)]
    for seed, path in enumerate(paths, 1):
        torch.save({"state_dict": change(network(name, seed).state_dict())}, path)
    return paths


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("segformer", without("q_proj.bias"), "SegFormer: 4 slots are missing (mit.stage0.block0.attn.q.bias, "),
        ("segformer", without("stages.3.layer_norm.bias"), "SegFormer: 1 slots are missing (mit.stage3.norm.bias)"),
        ("segformer", without("1.blocks.0.mlp.dwconv"), "2 slots are missing (mit.stage1.block0.mlp.dwconv.weight, "),
        ("segformer", without("classifier.bias"), "SegFormer: 1 slots are missing (segformer.classifier.bias)"),
        ("segformer", narrower, "mit.stage2.block0.mlp.fc1.weight is (50, 24), not (48, 24)"),
        (
            "segformer",
            lambda state: {**state, "decode_head.linear_fuse.bias": torch.ones(16)},
            "SegFormer: it lacks 1 of the slots (segformer.fuse.conv.bias)",
        ),
        ("daformer", without("conv_seg.bias"), "DAFormer: 1 slots are missing (daformer.classifier.bias)"),
        ("deeplab", grouped, "resnet.stage1.block0.conv2.weight is (16, 8, 3, 3), not (16, 16, 3, 3)"),
        ("deeplab", without("layer6.conv2d_list.0.bias"), "DeepLabV2: it has parts of one (layer6.conv2d_list.0.weigh"),
        ("edaps", without("rpn"), "EDAPS: it has parts of one (neck.lateral_convs.0.conv.weight, "),
        ("edaps", dict, "EDAPS: The countable classes person, rider, car, truck,"),
    ],
)
def test_a_network_that_lacks_something_keeps_its_names_and_says_so(
    name: str, change: Callable[[State], State], why: str, run: Run, tmp_path: Path
) -> None:
    files = models(name, change, tmp_path)
    code, _, err = run("merge", *files, "--output", "out")
    assert code == 0 and "keeps its own names and files" in err and why in err, err
    assert not Path("out", "config.json").exists()
    assert load_file("out/model.safetensors").keys() == torch.load(files[0])["state_dict"].keys()
    card = Path("out", "README.md").read_text().replace("\\", "")
    assert why in card and "load_file(" in card and "library_name: transformers" not in card


def test_a_card_counts_what_was_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    more = {"decode_head.extra.weight": torch.ones(3, 3), "neck.weight": torch.ones(4, 4)}
    usual = models("segformer", dict, tmp_path)
    extra = models("segformer", lambda state: {**state, **more}, tmp_path / "more")
    cards = []
    for files, output in ((usual, "usual"), (extra, "extra")):
        code, _, err = run("merge", *files, "--output", output)
        assert code == 0, err
        cards.append(Path(output, "README.md").read_text())
    counted = [[line for line in card.splitlines() if "weights" in line and line[-1] in ").,"] for card in cards]
    assert counted[0] == counted[1] and any("depth positions" in line for line in counted[1])
    note = "- Left out 2 tensors that are not the network's (decode_head.extra.weight, ...)."
    assert note in cards[1].replace("\\", "") and "Left out" not in cards[0]
    written = sum(t.numel() for t in load_file("extra/model.safetensors").values() if t.is_floating_point())
    assert f"of the anchor's {written:,} weights" in cards[1] and f"**Size:** {written:,} weights" in cards[1]
