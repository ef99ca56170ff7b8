"""Vision transformers give the same answers after a conversion to the names of another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from manifests import Arrays, write
from manifests import stored as stored_arrays
from safetensors.numpy import load_file
from torch import nn
from vits import GATED, PAIRS, SIZE, converted, dinov2, drawn, layout_of, of_timm, stored, tokens

import hf_lwmm


def name_in(library: str, network: nn.Module) -> str:
    """What the layouts call a library's names: data2vec-vision has names of its own in transformers."""
    return library + "-data2vec" * isinstance(network, transformers.Data2VecVisionModel)


def loaded(network: nn.Module, arrays: Arrays) -> nn.Module:
    """The network with these weights, loaded as its library does it."""
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    if isinstance(network, transformers.PreTrainedModel):
        pools = {transformers.Data2VecVisionModel: True, transformers.ViTModel: False, transformers.DeiTModel: False}
        more = {"add_pooling_layer": pools[type(network)]} if type(network) in pools else {}
        return type(network).from_pretrained(None, config=network.config, state_dict=state, **more).eval()
    network.load_state_dict(state)
    return network.eval()


def agree(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.shape == other.shape and float(one.std()) > 0.05
    assert float((one - other).abs().max()) < 1e-5 * float(one.max() - one.min())


@torch.no_grad()
@pytest.mark.parametrize("kin", PAIRS)
def test_both_libraries_give_the_same_answer_after_a_conversion(kin: str, tmp_path: Path) -> None:
    in_timm, in_transformers, timms, others, forward = PAIRS[kin]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for make, layout, other, to in (
        (in_timm, timms, in_transformers, "transformers"),
        (in_transformers, others, in_timm, "timm"),
    ):
        network = drawn(make())
        file = stored(network, tmp_path / to)
        assert layout_of(file) == layout
        target = drawn(other(), 1)
        target = loaded(target, converted(file, name_in(to, target)))
        agree(forward(network, images), forward(target, images))


@pytest.mark.parametrize("kin", PAIRS)
def test_there_and_back_is_the_same_bytes(kin: str, tmp_path: Path) -> None:
    file = stored(drawn(PAIRS[kin][0]()), tmp_path)
    before = load_file(file)
    there = write(tmp_path / "there.safetensors", converted(file, name_in("transformers", PAIRS[kin][1]())))
    after = converted(there, "timm")
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert all(np.shape(before[name]) == np.shape(after[name]) for name in before)


@torch.no_grad()
@pytest.mark.parametrize(("registers", "layout"), [(0, "dinov2-giant"), (3, "dinov2-registers-giant")])
def test_a_giant_dinov2_in_memory_is_the_one_of_files_and_of_timm(registers: int, layout: str, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = drawn(dinov2(registers, use_swiglu_ffn=True))
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    in_memory = write(tmp_path / "in_memory.safetensors", state)
    assert layout_of(in_memory) == f"vit/transformers-{layout}-runtime"
    timms = of_timm(init_values=1.0, reg_tokens=registers, no_embed_class=registers > 0, **GATED)
    agree(tokens(loaded(timms, converted(in_memory, "timm")), images), tokens(network, images))
    there = write(tmp_path / "there.safetensors", converted(in_memory, "transformers"))
    again = loaded(dinov2(registers, use_swiglu_ffn=True), load_file(there))
    assert all((tensor.numpy() == state[name]).all() for name, tensor in again.state_dict().items())
    back = converted(there, f"transformers-{layout}-runtime")
    assert {name.partition(".")[2] for name in back} == state.keys()


@torch.no_grad()
def test_an_eomt_computes_in_its_first_blocks_what_timms_dinov2_does(tmp_path: Path) -> None:
    config = transformers.EomtConfig(**SIZE, num_blocks=1, num_queries=2, num_upscale_blocks=1, num_register_tokens=3)
    network = drawn(transformers.EomtForUniversalSegmentation(config))
    timms = of_timm(init_values=1.0, mlp_ratio=4, reg_tokens=3, no_embed_class=True)
    loaded(timms, converted(stored(network, tmp_path), "timm"))
    outputs = []
    for block in (network.layers[0], timms.blocks[0]):  # type: ignore[union-attr]
        block.register_forward_hook(lambda *args: outputs.append(args[-1]))
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network(images)
    timms(images)
    agree(*outputs)


def test_what_only_meta_trains_a_dinov3_with_is_left_out(tmp_path: Path) -> None:
    arrays = stored_arrays("dinov3_vits16", shrink=16)
    width = arrays["norm.weight"].shape
    local = {f"local_cls_norm.{leaf}": np.ones(width, np.float32) for leaf in ("weight", "bias")}
    file = write(tmp_path / "model.safetensors", {**arrays, **local})
    found = hf_lwmm.convert(file, tmp_path / "out.safetensors", to="transformers")
    assert "Left out 14 tensors that the network never uses" in found.notes[0]  # with the biases of keys
    assert layout_of(tmp_path / "out.safetensors") == "dinov3/transformers"
