"""The MiT networks against the results of the systems' own code, and as transformers models."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifests import slot_map
from reference import compare, fill, seeded_image, zero_image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from hf_lwmm.errors import LayoutError
from hf_lwmm.evaluation.class_map import resized_logits
from hf_lwmm.evaluation.inference import window_logits
from hf_lwmm.labels import label_sets
from hf_lwmm.layouts import map_slots
from hf_lwmm.networks import from_slots
from hf_lwmm.networks.daformer import DAFormerConfig, DAFormerForSemanticSegmentation
from hf_lwmm.networks.edaps import EDAPSConfig, EDAPSForPanopticSegmentation
from hf_lwmm.networks.hrda import HRDAConfig, HRDAForSemanticSegmentation
from hf_lwmm.networks.module_slots import slots_of
from hf_lwmm.networks.segformer_mmseg import SegformerMMSegConfig, SegformerMMSegForSemanticSegmentation
from hf_lwmm.networks.windows import window_boxes

CITYSCAPES = label_sets()["cityscapes19"].classes
MIT_B5 = {
    "depths": [3, 6, 40, 3],
    "hidden_sizes": [64, 128, 320, 512],
    "num_attention_heads": [1, 2, 5, 8],
    "sr_ratios": [8, 4, 2, 1],
    "mlp_ratios": [4, 4, 4, 4],
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
}
TINY = {
    "depths": [1, 2, 1, 1],
    "hidden_sizes": [4, 8, 12, 16],
    "num_attention_heads": [1, 2, 3, 4],
    "decoder_hidden_size": 8,
    "num_labels": 5,
}
THINGS = TINY | {"num_labels": 19, "thing_ids": list(range(11, 19))}
TINY_NETWORKS = {
    "daformer": (DAFormerForSemanticSegmentation, DAFormerConfig(**TINY, embedding_size=12)),
    "hrda": (
        HRDAForSemanticSegmentation,
        HRDAConfig(
            **TINY,
            embedding_size=12,
            attention_hidden_size=6,
            detail_crop_size=[32, 32],
            detail_crop_stride=[16, 16],
        ),
    ),
    "segformer-mmseg": (SegformerMMSegForSemanticSegmentation, SegformerMMSegConfig(**TINY)),
    "edaps": (
        EDAPSForPanopticSegmentation,
        EDAPSConfig(**THINGS, embedding_size=12, fpn_hidden_size=8, box_hidden_size=16, mask_hidden_size=8),
    ),
    "edaps-bottomup": (
        EDAPSForPanopticSegmentation,
        EDAPSConfig(**THINGS, embedding_size=12, instance_decoder="centers"),
    ),
}
FAMILIES = {
    "daformer": from_slots.daformer_config,
    "hrda": from_slots.hrda_config,
    "segformer-mmseg": from_slots.segformer_mmseg_config,
    "edaps": from_slots.edaps_config,
}


def tiny(name: str) -> nn.Module:
    torch.manual_seed(0)
    network, config = TINY_NETWORKS[name]
    return network(deepcopy(config)).eval()  # saving a network writes into its configuration


def features_and_logits(model: nn.Module, feature_prefix: str = "features_") -> dict[str, Tensor]:
    with torch.no_grad():
        image, zero = (model(x, output_hidden_states=True) for x in (seeded_image(64, 96), zero_image(64, 96)))
    features = {f"{feature_prefix}{stage}": states for stage, states in enumerate(image.hidden_states)}
    zeros = {"zero_features_0": zero.hidden_states[0], "zero_logits": zero.logits}
    return features | {"logits": image.logits} | zeros


@pytest.mark.parametrize("system", ["nvlabs_segformer_b0", "smp_segformer_mit_b0"])
def test_segformer_in_transformers_computes_what_the_original_does(system: str) -> None:
    model = fill(SegformerForSemanticSegmentation(SegformerConfig(num_labels=19)), system)
    compare(system, features_and_logits(model))


def test_daformer_computes_what_the_original_does() -> None:
    model = DAFormerForSemanticSegmentation(from_slots.daformer_config(slot_map("daformer_mitb5"), CITYSCAPES))
    compare("daformer_mitb5", features_and_logits(fill(model, "daformer_mitb5")))


def test_mmsegmentations_segformer_computes_what_the_original_does() -> None:
    config = from_slots.segformer_mmseg_config(slot_map("mmseg1x_segformer_b0"), CITYSCAPES)
    model = fill(SegformerMMSegForSemanticSegmentation(config), "mmseg1x_segformer_b0")
    compare("mmseg1x_segformer_b0", features_and_logits(model))


def slide(model: Any, image: Tensor, window: tuple[int, int], stride: tuple[int, int] = (64, 64)) -> Tensor:
    """Logits at the size of the image, averaged over windows: (1, C, H, W)."""
    (scores,) = window_logits(model, image, window, stride)
    return resized_logits(scores, scores.size)[None]


def test_hrda_computes_what_the_original_does() -> None:
    config = from_slots.hrda_config(slot_map("hrda_mitb5"), CITYSCAPES)
    config.detail_crop_size, config.detail_crop_stride = [64, 64], [32, 32]
    model, image = fill(HRDAForSemanticSegmentation(config), "hrda_mitb5"), seeded_image(128, 192)
    with torch.no_grad():
        output = model(image, output_hidden_states=True)
    arrays = {
        "lr_logits": output.context_logits,
        "hr_logits": output.detail_logits,
        "attention": output.attention,
        "lr_logits_weighted": (1 - output.attention) * output.context_logits,
        "logits": output.logits,
        "encode_decode_sub": slide(lambda window: output, image, (128, 192))[..., ::4, ::4],
        "slide_inference_sub": slide(model, image, (128, 128))[..., ::4, ::4],
        "hr_crop_boxes_y1y2x1x2": output.detail_boxes,
    }
    for stage in range(4):
        arrays[f"features_lr_{stage}"] = output.hidden_states[stage]
        arrays[f"features_hrcrops_{stage}"] = output.detail_hidden_states[stage]
    compare("hrda_mitb5", arrays)


@pytest.mark.parametrize("system", ["mic_mitb5", "pipa_hrda_mitb5"])
def test_mic_and_pipa_are_the_same_network_as_hrda(system: str) -> None:
    """Every weight has the same name, place and shape, so what holds for HRDA's arrays holds for theirs."""
    theirs = slot_map(system).slots
    assert all(theirs[slot] == atom for slot, atom in slot_map("hrda_mitb5").slots.items())
    assert {slot.partition(".")[0] for slot in theirs.keys() - slot_map("hrda_mitb5").slots.keys()} <= {"pipa"}


@pytest.mark.parametrize(("network", "at_convolution"), [("daformer", 1e-5), ("hrda", 1e-5), ("segformer-mmseg", 1e-6)])
def test_every_normalisation_has_the_epsilon_of_its_code_base(network: str, at_convolution: float) -> None:
    norms = {name: m.eps for name, m in tiny(network).named_modules() if isinstance(m, nn.LayerNorm)}
    patches = {eps for name, eps in norms.items() if "patch_embeddings" in name}
    reductions = {eps for name, eps in norms.items() if "sequence_reduction" in name}
    others = {eps for name, eps in norms.items() if "patch_emb" not in name and "sequence_red" not in name}
    assert (patches, reductions, others) == ({at_convolution}, {at_convolution}, {1e-6})


@pytest.mark.parametrize("network", TINY_NETWORKS)
def test_a_saved_network_is_loaded_bit_for_bit_and_its_layouts_are_known(network: str, tmp_path) -> None:
    model = tiny(network)
    model.save_pretrained(tmp_path / "saved")
    loaded, info = type(model).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(loaded(seeded_image(64, 64)).logits, model(seeded_image(64, 64)).logits)

    stored = load_file(tmp_path / "saved" / "model.safetensors")
    on_disk = map_slots({name: tuple(tensor.shape) for name, tensor in stored.items()})
    assert on_disk.slots.keys() == slots_of(model).slots.keys()
    assert not [name for name, atoms in on_disk.atoms.items() if atoms[0].slot == name], "names that no layout knows"
    assert on_disk.layout.startswith("mit/transformers + ")
    assert slots_of(model).layout == on_disk.layout.replace("mit/transformers", "mit/transformers-runtime")


@pytest.mark.parametrize("network", ["daformer", "hrda", "segformer-mmseg", "edaps"])
def test_training_reaches_every_weight_and_leaves_ignored_pixels_out(network: str) -> None:
    model, image = tiny(network), torch.cat([seeded_image(64, 96)] * 2)
    labels = torch.arange(64 * 96).reshape(1, 64, 96).expand(2, -1, -1) % 5
    ignored = torch.where(torch.arange(64)[:, None] < 20, 255, labels)
    with torch.no_grad():
        output = model(image, labels=ignored)
        logits = nn.functional.interpolate(output.logits, (64, 96), mode="bilinear", align_corners=False)
    expected = nn.functional.cross_entropy(logits[:, :, 20:], labels[:, 20:])
    torch.testing.assert_close(output.loss, expected)

    model.train()
    model(image, labels=ignored).loss.backward()
    instance_parts = ("neck.", "rpn_head.", "roi_head.")  # they have no loss
    lacking = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not [name for name in lacking if not name.startswith(instance_parts)]


@pytest.mark.parametrize("network", TINY_NETWORKS)
def test_unknown_arguments_are_refused(network: str) -> None:
    with pytest.raises(TypeError, match="num_items_in_batch"):
        tiny(network)(seeded_image(64, 64), num_items_in_batch=2)


def test_hrda_trains_on_one_detail_crop_and_takes_the_rest_from_the_context() -> None:
    model, image = tiny("hrda").train(), torch.cat([seeded_image(96, 128)] * 2)
    output = model(image)
    ((y1, y2, x1, x2),) = (output.detail_boxes // 4).tolist()
    assert (y2 - y1, x2 - x1) == (8, 8)
    outside = torch.ones(24, 32, dtype=torch.bool)
    outside[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = False
    context = nn.functional.interpolate(output.context_logits, (24, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.logits[..., outside], context[..., outside])
    assert not torch.allclose(output.logits, context)


@pytest.mark.parametrize(
    ("family", "system"),
    [
        ("daformer", "daformer_mitb5"),
        ("hrda", "hrda_mitb5"),
        ("hrda", "mic_mitb5"),
        ("hrda", "pipa_hrda_mitb5"),
        ("segformer-mmseg", "mmseg1x_segformer_b5"),
        ("edaps", "edaps_mitb5"),
        ("edaps", "edaps_bottomup_mitb5"),
    ],
)
def test_the_configuration_follows_from_the_slots(family: str, system: str) -> None:
    config = FAMILIES[family](slot_map(system), CITYSCAPES)
    assert {name: list(getattr(config, name)) for name in MIT_B5} == MIT_B5
    assert tuple(config.id2label.values()) == CITYSCAPES


@pytest.mark.parametrize("network", TINY_NETWORKS)
def test_the_configuration_of_a_small_network_follows_from_its_slots(network: str) -> None:
    model = tiny(network)
    config_for = FAMILIES[network.removesuffix("-bottomup")]
    made = TINY_NETWORKS[network][1]
    found = config_for(slots_of(model), CITYSCAPES[: made.num_labels])
    names = set(made.to_dict()) - {"id2label", "label2id", "detail_crop_size", "detail_crop_stride"}
    assert {n: _listed(getattr(found, n, None)) for n in names} == {n: _listed(getattr(made, n, None)) for n in names}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_reason() -> None:
    with pytest.raises(LayoutError, match="has 19 classes, but 16 labels were given"):
        from_slots.daformer_config(slot_map("daformer_mitb5"), label_sets()["synthia16"].classes)
    with pytest.raises(LayoutError, match="no HRDA checkpoint: it has no HRDA scale attention"):
        from_slots.hrda_config(slot_map("daformer_mitb5"), CITYSCAPES)
    with pytest.raises(LayoutError, match="no DAFormer checkpoint: it has no MiT and no DAFormer head"):
        from_slots.daformer_config(slot_map("advent_deeplabv2_r101_multi"), CITYSCAPES)
    with pytest.raises(LayoutError, match="no EDAPS checkpoint: it has no EDAPS instance decoder"):
        from_slots.edaps_config(slot_map("daformer_mitb5"), CITYSCAPES)
    with pytest.raises(LayoutError, match="countable classes train are not among the labels"):
        from_slots.edaps_config(slot_map("edaps_mitb5"), [*CITYSCAPES[:16], "tram", *CITYSCAPES[17:]])

    shapes = {name: tuple(tensor.shape) for name, tensor in tiny("daformer").state_dict().items()}
    short = {name: shape for name, shape in shapes.items() if "stages.1.blocks.1.mlp.fc2" not in name}
    with pytest.raises(LayoutError, match=r"2 slots are missing \(mit.stage1.block1.mlp.fc2.weight, "):
        from_slots.daformer_config(map_slots(short), list("abcde"))
    wide = shapes | {"decode_head.embed_layers.2.proj.bias": (13,)}
    with pytest.raises(LayoutError, match=r"another shape \(daformer.embed2.proj.bias is \(13,\), not \(12,\)\)"):
        from_slots.daformer_config(map_slots(wide), list("abcde"))
    narrow = shapes | {"decode_head.fuse_layer.bottleneck.conv.weight": (8, 24, 3, 3)}
    with pytest.raises(LayoutError, match="joins 3 branches"):
        from_slots.daformer_config(map_slots(narrow), list("abcde"))


sides = st.integers(1, 60)


@given(st.tuples(sides, sides), st.tuples(sides, sides), st.tuples(sides, sides))
def test_windows_lie_on_the_image_in_their_full_size_and_cover_it(size, crop, stride) -> None:
    covered = np.zeros(size, bool)
    for y1, y2, x1, x2 in window_boxes(size, crop, stride):
        assert 0 <= y1 < y2 <= size[0] and 0 <= x1 < x2 <= size[1]
        assert (y2 - y1, x2 - x1) == (min(crop[0], size[0]), min(crop[1], size[1]))
        covered[y1:y2, x1:x2] = True
    gaps = stride[0] > crop[0] or stride[1] > crop[1]
    assert covered.all() or gaps


def test_sliding_averages_the_windows_that_see_a_pixel() -> None:
    calls = []

    class Answer:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    def numbered(window: Tensor) -> Answer:
        calls.append(tuple(window.shape))
        return Answer(torch.full((1, 2, 2, 2), float(len(calls))))

    logits = slide(numbered, seeded_image(4, 10), (4, 4), (4, 3))
    assert calls == [(1, 3, 4, 4)] * 3
    assert logits.shape == (1, 2, 4, 10)
    assert logits[0, 0, 0].tolist() == [1, 1, 1, 1.5, 2, 2, 2.5, 3, 3, 3]
