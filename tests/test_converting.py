"""Checkpoints in other layouts, and what the key-mapping layer promises about every pair of the paper's systems."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from manifests import Arrays, manifest, slot_map, to_slots, write
from manifests import stored as stored_in_full
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.errors import LayoutError, MergeError
from hf_lwmm.layouts import LAYOUTS
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.planning.conversion import plan_conversion
from hf_lwmm.planning.knobs import Knobs

pytestmark = pytest.mark.usefixtures("without_plots")

SEGFORMERS = {
    "transformers": "transformers_segformer_b0_hub_legacy",
    "transformers-runtime": "transformers_segformer_b0_runtime",
    "nvidia": "nvlabs_segformer_b0",
    "smp": "smp_segformer_mit_b0",
}


def stored(system: str, seed: int = 0, keep: str = "") -> Arrays:
    """A system's tensors, in narrow layers."""
    return stored_in_full(system, seed, keep, **narrow(system))


def narrow(system: str) -> dict[str, int]:
    return {"shrink": 8, "least": 32} if "_b0" in system or "_b2" in system else {"shrink": 16}


def converted(tmp_path: Path, arrays: Arrays, to: str, *, backbone_only: bool = False) -> Arrays:
    source, output = write(tmp_path / "source.safetensors", arrays), tmp_path / "converted.safetensors"
    hf_lwmm.convert(source, output, to=to, backbone_only=backbone_only, overwrite=True)
    return load_file(tmp_path / "converted.safetensors")


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() and one[name].shape == other[name].shape for name in one
    )


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(SEGFORMERS, 2)))
def test_segformers_convert_into_each_other(first: str, second: str, tmp_path: Path) -> None:
    source, wanted = stored(SEGFORMERS[first]), stored(SEGFORMERS[second])
    result = converted(tmp_path, source, second)
    assert same(result, _used(wanted))
    assert same(to_slots(converted(tmp_path, result, first)), to_slots(result))


def test_tensors_come_in_the_order_in_which_the_code_registers_them(tmp_path: Path) -> None:
    source = write(tmp_path / "source.safetensors", stored("transformers_segformer_b0_hub_legacy"))
    conversion = hf_lwmm.convert(source, tmp_path / "nvidia.pth", to="nvidia")
    names = [name for name, _, _ in manifest("nvlabs_segformer_b0") if "conv_seg" not in name]
    assert [tensor.name for tensor in conversion.tensors] == names
    state = torch.load(tmp_path / "nvidia.pth", weights_only=True)
    assert same({name: tensor.numpy() for name, tensor in state.items()}, _used(stored("nvlabs_segformer_b0")))


def test_heads_come_in_the_order_in_which_the_code_registers_them(tmp_path: Path) -> None:
    source = write(tmp_path / "source.safetensors", stored("edaps_mitb5"))
    checkpoint = open_checkpoint(hub.resolve(hub.parse_ref(source)))
    to = {"mit": "nvidia", "edaps_instance": "edaps", "daformer": "daformer"}
    found = [tensor.name for tensor in plan_conversion(checkpoint, to).tensors]
    assert found == [name for name, _, _ in manifest("edaps_mitb5") if name in found] and len(found) > 1_000


def _used(arrays: Arrays) -> Arrays:
    """Without what NVIDIA's SegFormer stores and never uses."""
    nvidia = "decode_head.linear_pred.weight" in arrays
    return {name: array for name, array in arrays.items() if not nvidia or "conv_seg" not in name}


def test_daformers_backbone_becomes_a_transformers_one(tmp_path: Path) -> None:
    source = stored("daformer_mitb5")
    with pytest.raises(LayoutError, match=r"transformers cannot hold its DAFormer head \(58 slots.*--backbone-only"):
        converted(tmp_path, source, "transformers")
    result = converted(tmp_path, source, "transformers", backbone_only=True)
    legacy = stored("transformers_segformer_b5_hub_legacy", keep="segformer.")
    assert same(result, legacy)


def test_timms_resnet_becomes_advents(tmp_path: Path) -> None:
    source = stored("timm_resnet101")
    with pytest.raises(LayoutError, match="advent cannot hold its image classifier"):
        converted(tmp_path, source, "advent")
    result = converted(tmp_path, source, "advent", backbone_only=True)
    assert same(result, {name: array for name, array in source.items() if not name.startswith("fc.")})


def test_multi_level_and_separate_classifiers_convert(tmp_path: Path) -> None:
    fada = stored("fada_r101_bn")
    advent = converted(tmp_path, fada, "advent")
    assert same(advent, stored("advent_deeplabv2_r101_single"))
    assert same(converted(tmp_path, advent, "fada"), fada)
    multi = stored("advent_deeplabv2_r101_multi")
    assert same(converted(tmp_path, multi, "maxsquare"), multi)
    with pytest.raises(LayoutError, match=r"fada cannot hold its ResNet .*stage2\.aux\.branch0\.weight and 7 more"):
        converted(tmp_path, multi, "fada")
    single = {name: array for name, array in multi.items() if not re.match(r"layer5\.(?!conv2d_list\.0\.weight)", name)}
    with pytest.raises(LayoutError, match=r"has no name for resnet\.stage2\.aux\.branch0\.weight\.$"):
        converted(tmp_path, single, "fada")


def test_fadas_halves_are_saved_as_fada_saves_them(tmp_path: Path) -> None:
    source = write(tmp_path / "source.safetensors", stored("advent_deeplabv2_r101_single"))
    hf_lwmm.convert(source, tmp_path / "fada.pth", to="fada")
    halves = torch.load(tmp_path / "fada.pth", weights_only=True)
    assert set(halves) == {"feature_extractor", "classifier"} and "conv2d_list.0.weight" in halves["classifier"]
    assert hf_lwmm.inspect(tmp_path / "fada.pth").layout == "resnet/fada + deeplab/classifier"


@pytest.mark.parametrize(
    "system", ["hrda_mitb5", "edaps_mitb5", "timm_pvt_v2_b2", "mmseg1x_segformer_b0", "conmix_vit"]
)
def test_there_and_back_is_the_same_file(system: str, tmp_path: Path) -> None:
    own = {"hrda": "hrda", "edaps": "edaps", "timm": "timm", "mmseg1x": "mmseg", "conmix": "conmix"}
    arrays = {re.sub("^(netF|netB|netC)::", "", name): array for name, array in stored(system).items()}
    arrays = {name: array for name, array in arrays.items() if "decoder.blocks" not in name}
    result = converted(tmp_path, arrays, own[system.split("_")[0]])
    assert same(result, arrays)


def test_a_stack_needs_all_its_parts(tmp_path: Path) -> None:
    arrays = stored("transformers_segformer_b0_hub_legacy")
    del arrays["segformer.encoder.block.0.0.attention.self.value.bias"]
    with pytest.raises(LayoutError, match=r"from 2 parts, of which mit\.stage0\.block0\.attn\.v\.bias is not there"):
        converted(tmp_path, arrays, "nvidia")


def test_unknown_layouts_and_networks_are_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"No layout is called 'caffe'\. There are: adaptsegnet, .*transformers"):
        converted(tmp_path, stored("nvlabs_segformer_b0"), "caffe")
    with pytest.raises(LayoutError, match="no layout knows its tensors"):
        converted(tmp_path, {"some.weight": np.ones(3, np.float32)}, "nvidia")
    with pytest.raises(LayoutError, match=r"no layout knows 31 of its tensors .*--backbone-only"):
        converted(tmp_path, stored("smp_fpn_mit_b0"), "nvidia")


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    source = write(tmp_path / "source.safetensors", stored("nvlabs_segformer_b0"))
    (tmp_path / "there.pth").write_bytes(b"mine")
    with pytest.raises(MergeError, match="exists already"):
        hf_lwmm.convert(source, tmp_path / "there.pth", to="smp")
    assert (tmp_path / "there.pth").read_bytes() == b"mine"
    hf_lwmm.convert(source, tmp_path / "folder", to="smp")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source.safetensors", "there.pth"]


def test_the_command_says_what_it_did_and_what_it_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "source.safetensors", stored("nvlabs_segformer_b0"))
    command = [sys.executable, "-m", "hf_lwmm", "convert", str(source), str(tmp_path / "b0.safetensors")]
    done = subprocess.run([*command, "--to", "transformers"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Left out 2 tensors that the network never uses (segformer.unused_classifier.weight, ...)." in done.stderr
    assert "mit/nvidia + segformer/nvidia to mit/transformers + segformer/transformers" in done.stdout
    done = subprocess.run([*command, "--to", "fada", "--overwrite"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and "fada cannot hold its MiT" in done.stderr


# Merging

PAIRS = [
    ("nvlabs_segformer_b0", "smp_segformer_mit_b0", "nvidia"),
    ("transformers_segformer_b0_hub_legacy", "nvlabs_segformer_b0", "transformers"),
    ("smp_segformer_mit_b0", "transformers_segformer_b0_runtime", "smp"),
    ("timm_pvt_v2_b2", "transformers_pvt_v2_b2", "timm"),
    ("advent_deeplabv2_r101_single", "fada_r101_bn", "advent"),
    ("fada_r101", "advent_deeplabv2_r101_multi", "fada"),
    ("torchvision_resnet101", "transformers_resnet101_runtime", "torchvision"),
    ("daformer_mitb5", "hrda_mitb5", "daformer"),
    ("hrda_mitb5", "edaps_mitb5", "hrda"),
]


@pytest.mark.parametrize(("first", "second", "code_base"), PAIRS)
def test_merging_across_layouts_is_merging_after_conversion(
    first: str, second: str, code_base: str, tmp_path: Path
) -> None:
    one = write(tmp_path / "one.safetensors", _used(stored(first, 1)))
    other = write(tmp_path / "other.safetensors", _used(stored(second, 2)))
    # What the target layout has no place for is no part of what they share.
    common = [layout.component.name for layout in LAYOUTS if code_base in layout.code_bases]
    slots = slot_map(second, **narrow(second))
    kept = {atom.tensor for slot, atom in slots.slots.items() if slot.partition(".")[0] in common and "aux" not in slot}
    trimmed = {name: array for name, array in _used(stored(second, 2)).items() if name in kept}
    changed = converted(tmp_path, trimmed, code_base)
    hf_lwmm.merge([one, other], output=tmp_path / "across")
    hf_lwmm.merge([one, write(tmp_path / "changed.safetensors", changed)], output=tmp_path / "within")
    across, within = (tmp_path / name / "model.safetensors" for name in ("across", "within"))
    assert across.read_bytes() == within.read_bytes()


def plan(tmp_path: Path, **systems: Arrays) -> hf_lwmm.MergePlan:
    return hf_lwmm.plan([write(tmp_path / f"{name}.safetensors", arrays) for name, arrays in systems.items()])


def test_daformer_and_hrda_share_the_whole_daformer(tmp_path: Path) -> None:
    decided = plan(tmp_path, hrda=stored("hrda_mitb5", 1), daformer=stored("daformer_mitb5", 2))
    shared = {slot.slot for slot in decided.alignment.shared}
    floats = {s for s in slot_map("daformer_mitb5").slots if not s.endswith("num_batches_tracked")}
    assert shared == floats
    assert all(u.slot.startswith("scale_attention.") or "num_batches" in u.slot for u in decided.alignment.unshared)


def test_hrda_and_edaps_share_backbone_and_semantic_head(tmp_path: Path) -> None:
    decided = plan(tmp_path, edaps=stored("edaps_mitb5", 1), hrda=stored("hrda_mitb5", 2))
    components = {slot.slot.partition(".")[0] for slot in decided.alignment.shared}
    assert components == {"mit", "daformer"}
    mine = {
        u.slot.partition(".")[0] for u in decided.alignment.unshared if u.model == 0 and "num_batches" not in u.slot
    }
    assert mine == {"edaps_instance"}


def test_the_deeplab_methods_merge_and_keep_what_only_the_anchor_has(tmp_path: Path) -> None:
    systems = ("advent_deeplabv2_r101_multi", "adaptsegnet_deeplab_multi_r101", "maxsquare_deeplab_multi_r101")
    systems += ("fada_r101_bn", "advent_deeplabv2_r101_single")
    decided = plan(tmp_path, **{name: stored(name, seed) for seed, name in enumerate(systems)})
    shared = {slot.slot for slot in decided.alignment.shared}
    assert len(shared) == 520 + 8 and not any("aux" in slot for slot in shared)
    kept = {u.slot for u in decided.alignment.unshared if u.model == 0 and "num_batches" not in u.slot}
    assert kept == {f"resnet.stage2.aux.branch{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")}


def test_detectors_share_their_backbone_and_the_rest_by_name(tmp_path: Path) -> None:
    resnet = {n.removeprefix("netF::"): a for n, a in stored("conmix_resnet50", 3).items() if n.startswith("netF")}
    draw = np.random.default_rng(0)

    def detector(seed: int) -> Arrays:
        body = {n.removeprefix("netF::"): a for n, a in stored("conmix_resnet50", seed).items() if "netF" in n}
        names = {name: f"backbone.body.{'' if name.startswith('layer') else 'stem.'}{name}" for name in body}
        # Frozen BatchNorm has no counters.
        arrays = {names[name]: array for name, array in body.items() if "num_batches" not in name}
        shapes = {"rpn.head.conv.weight": (16, 64, 3, 3), "roi_heads.box.predictor.cls_score.weight": (9, 128)}
        return arrays | {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    decided = plan(tmp_path, a=detector(1), b=detector(2))
    assert len(decided.alignment.shared) == 265 + 2
    assert decided.checkpoints[0].slot_map.layout == "resnet/maskrcnn-fpn"
    with_resnet = plan(tmp_path, a=detector(1), r=resnet)
    assert {slot.slot.partition(".")[0] for slot in with_resnet.alignment.shared} == {"resnet"}


def test_cvrns_branches_share_what_they_have_by_slot_and_by_name(tmp_path: Path) -> None:
    upsnet, maskrcnn = stored("cvrn_upsnet_r101", 1), stored("cvrn_psn_maskrcnn_r101", 2)
    decided = plan(tmp_path, maskrcnn=maskrcnn, upsnet=upsnet)
    counters = sum(name.endswith("num_batches_tracked") for name in maskrcnn)
    assert len(decided.alignment.shared) == len(maskrcnn) - counters == 520 + 42
    deeplab, advent = (stored(name, 3) for name in ("cvrn_psn_deeplab_r101", "advent_deeplabv2_r101_multi"))
    for one, other in ((maskrcnn, deeplab), (deeplab, advent)):  # of which the last have 16 and 19 classes
        decided = plan(tmp_path, one=one, other=other)
        assert len(decided.alignment.shared) == 520
        assert {slot.slot.partition(".")[0] for slot in decided.alignment.shared} == {"resnet"}


def test_a_backbone_is_found_under_any_prefix(tmp_path: Path) -> None:
    foreign = {"net.student." + name: array for name, array in stored("daformer_mitb5", 1, keep="backbone.").items()}
    decided = plan(tmp_path, own=stored("hrda_mitb5", 2), foreign=foreign)
    assert len(decided.alignment.shared) == 1156
    vgg = {"backbone.body." + n: a for n, a in stored("adaptsegnet_deeplab_vgg16", 1, keep="features.").items()}
    decided = plan(tmp_path, detector=vgg, deeplab=stored("fada_vgg16", 2))
    assert len(decided.alignment.shared) == 30


# Weight-normalised classifiers


def effective(arrays: Arrays, module: str) -> np.ndarray:
    g, v = (arrays[f"{module}.weight_{factor}"].astype(np.float64) for factor in "gv")
    return np.asarray(g * v / np.linalg.norm(v, axis=1, keepdims=True))


def merged(tmp_path: Path, *models: Arrays, knobs: Knobs = Knobs()) -> Arrays:
    paths = [write(tmp_path / f"model{i}.safetensors", model) for i, model in enumerate(models)]
    hf_lwmm.merge(paths, output=tmp_path / "out", knobs=knobs)
    return load_file(tmp_path / "out" / "model.safetensors")


def conmix(seed: int) -> Arrays:
    return {re.sub("^net[FBC]::", "", n): array for n, array in stored("conmix_resnet50", seed).items()}


def test_weight_normalised_layers_merge_by_their_effective_weight(tmp_path: Path) -> None:
    models = [{**stored("glc_sfunida_resnet50", seed)} for seed in (1, 2, 3)]
    for seed, model in enumerate(models):
        name = "class_layer.fc.weight_v"
        model[name] = model[name] * np.float32(seed + 1)  # its length says nothing
    # With a last position of its own after it, the classifier still has a say from every model.
    knobs = Knobs(method=Layerwise(ramp="power:0.1"), granularity="block")
    result = merged(tmp_path, *models, knobs=knobs)
    decided = hf_lwmm.plan([tmp_path / f"model{i}.safetensors" for i in range(3)], knobs=knobs)
    slot = next(s for s in decided.alignment.shared if s.slot.endswith("classifier.weight_g"))
    weights = decided.slot_weights(slot)
    expected = sum(weights[i] * effective(model, "class_layer.fc") for i, model in enumerate(models))
    np.testing.assert_allclose(effective(result, "class_layer.fc"), expected, rtol=1e-5, atol=1e-6)
    assert weights[1] == 0 or not np.array_equal(
        result["class_layer.fc.weight_v"], models[0]["class_layer.fc.weight_v"]
    )


def test_both_factors_share_a_depth_position_and_equal_models_keep_their_bits(tmp_path: Path) -> None:
    model = stored("glc_sfunida_resnet50", 1)
    decided = plan(tmp_path, a=model, b=stored("glc_sfunida_resnet50", 2))
    positions = {s.slot: s.position for s in decided.alignment.shared if "weight_" in s.slot}
    assert len(positions) == 2 and len(set(positions.values())) == 1
    assert same(merged(tmp_path, model, model), model)


def test_rows_of_weight_normalised_classifiers_match_by_label(tmp_path: Path) -> None:
    def rows(arrays: Arrays, keep: list[int]) -> Arrays:
        return {n: a[keep] if n.startswith("fc.") else a for n, a in arrays.items()}

    one, other = conmix(1), conmix(2)
    folders = []
    for name, arrays, labels in (("one", rows(one, [0, 1, 2]), "abc"), ("other", rows(other, [1, 0]), "ba")):
        write(tmp_path / name / "model.safetensors", arrays)
        labels_json = ", ".join(f'"{i}": "{label}"' for i, label in enumerate(labels))
        (tmp_path / name / "config.json").write_text(f'{{"id2label": {{{labels_json}}}}}')
        folders.append(tmp_path / name)
    knobs = Knobs(method=Layerwise(start=0.9, alpha=0.5, ramp="step"), head="by-label")
    hf_lwmm.merge(folders, output=tmp_path / "out", knobs=knobs)
    result = load_file(tmp_path / "out" / "model.safetensors")
    assert result["fc.weight_v"][2].tobytes() == one["fc.weight_v"][2].tobytes()
    decided = hf_lwmm.plan(folders, knobs=knobs)
    slot = next(s for s in decided.alignment.shared if s.slot.endswith("classifier.weight_v"))
    weight = decided.slot_weights(slot)[1]
    expected = (1 - weight) * effective(one, "fc")[:2] + weight * effective(other, "fc")[:2]
    np.testing.assert_allclose(effective(result, "fc")[:2], expected, rtol=1e-5, atol=1e-6)


def test_conmixs_three_files_are_one_model(tmp_path: Path) -> None:
    refs = []
    for seed in (1, 2):
        parts = {"netF": "source_F.pth", "netB": "source_B.pth", "netC": "source_C.pth"}
        folder = tmp_path / f"model{seed}"
        folder.mkdir()
        arrays = stored("conmix_resnet50", seed)
        for part, name in parts.items():
            state = {n.removeprefix(f"{part}::"): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(part)}
            torch.save(state, folder / name)
        refs.append(f"{folder}:{'+'.join(parts.values())}")
    decided = hf_lwmm.plan(refs)
    assert decided.checkpoints[0].slot_map.layout == "resnet/torchvision + bottleneck/conmix"
    assert len(decided.alignment.shared) == 265 + 9
    glc = write(tmp_path / "glc.safetensors", stored("glc_sfunida_resnet50", 3))
    components = {s.slot.partition(".")[0] for s in hf_lwmm.plan([refs[0], glc]).alignment.shared}
    assert components == {"resnet", "bottleneck"}
