"""Checkpoints as networks that run, and what importing the package does to transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh import Forks
from manifests import manifest, stored, write
from small_networks import SMALL, network, picture, saved, state

import hf_lwmm
from hf_lwmm import NetworkOptions
from hf_lwmm.errors import CheckpointError, DocumentError, LayoutError, PlanError
from hf_lwmm.labels import label_sets
from hf_lwmm.networks import BottleneckConfig, BottleneckForImageClassification, DAFormerForSemanticSegmentation


@pytest.mark.parametrize("name", SMALL)
def test_what_was_saved_is_loaded_with_its_labels(name: str, tmp_path: Path) -> None:
    model = network(name)
    loaded = hf_lwmm.load(saved(model, tmp_path / "model"))
    assert type(loaded.model) is type(model) and loaded.classes == ("road", "sky", "car")
    assert all(torch.equal(tensor, state(loaded.model)[key]) for key, tensor in state(model).items())
    assert not loaded.model.training and not loaded.notes


@pytest.mark.parametrize("name", ["daformer", "deeplab", "segformer"])
def test_a_bare_state_dict_is_loaded_by_its_tensors(name: str, tmp_path: Path) -> None:
    model = network(name)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "latest.pth")
    system = "adaptsegnet" if name == "deeplab" else None
    loaded = hf_lwmm.load(tmp_path / "latest.pth", NetworkOptions(system=system, labels=("road,sky,car",)))
    assert all(torch.equal(tensor, state(loaded.model)[key]) for key, tensor in state(model).items())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(image).logits, model(image).logits)
    assert loaded.classes == ("road", "sky", "car")
    nameless = hf_lwmm.load(tmp_path / "latest.pth")
    assert nameless.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert any("names none of its 3 classes; --labels does" in note for note in nameless.notes)
    assert any("assumed to be advent's" in note for note in nameless.notes) == (name == "deeplab")


def test_cdacs_checkpoints_are_daformers(tmp_path: Path) -> None:
    assert manifest("cdac_mitb5") == manifest("daformer_mitb5")
    arrays = {name: torch.from_numpy(each) for name, each in stored("cdac_mitb5", shrink=16).items()}
    wrapped = {f"{branch}.{name}": each for branch in ("model", "ema_model") for name, each in arrays.items()}
    torch.save({"meta": {"iter": 40000}, "state_dict": wrapped, "optimizer": {}}, tmp_path / "latest.pth")
    for branch in ("student", "teacher"):
        loaded = hf_lwmm.load(tmp_path / "latest.pth", NetworkOptions(labels=("cityscapes19",), branch=branch))
        assert isinstance(loaded.model, DAFormerForSemanticSegmentation)
        assert loaded.image_processor.size == {"shortest_edge": 512, "longest_edge": 1024}
        assert torch.equal(loaded.model.decode_head.conv_seg.weight, arrays["decode_head.conv_seg.weight"])


def test_cvrns_deeplab_is_advents(tmp_path: Path) -> None:
    arrays = {name: torch.from_numpy(each) for name, each in stored("cvrn_psn_deeplab_r101", shrink=16).items()}
    torch.save(arrays, tmp_path / "cvrn_psn_deeplab_branch.pth")
    loaded = hf_lwmm.load(tmp_path / "cvrn_psn_deeplab_branch.pth", NetworkOptions(labels=("synthia16",)))
    assert loaded.model.config.system == "advent" and loaded.classes == label_sets()["synthia16"].classes
    assert torch.equal(loaded.model.layer6.conv2d_list[3].weight, arrays["layer6.conv2d_list.3.weight"])


def test_image_settings_are_the_code_bases_own(tmp_path: Path) -> None:
    torch.save(network("deeplab").state_dict(), tmp_path / "d.pth")
    bgr = hf_lwmm.load(tmp_path / "d.pth").image_processor
    rgb = hf_lwmm.load(tmp_path / "d.pth", NetworkOptions(system="fada")).image_processor
    assert (bgr.channel_order, bgr.align_corners, bgr.image_std) == ("BGR", True, [1, 1, 1])
    assert (rgb.channel_order, rgb.size) == ("RGB", {"height": 512, "width": 1024})
    one = picture()
    values = bgr(one, return_tensors="np")["pixel_values"][0]
    expected = np.asarray(one.resize((1024, 512), 3), np.float32)[..., ::-1] - np.float32(
        [104.00698793, 116.66876762, 122.67891434]
    )
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1), atol=1e-4)
    scaled = rgb(one, return_tensors="np")["pixel_values"][0, 0]
    expected = (np.asarray(one.resize((1024, 512), 3), np.float32)[..., 0] / 255 - 0.485) / 0.229
    np.testing.assert_allclose(scaled, expected, atol=1e-4)


def test_missing_tensors_and_wrong_counts_are_listed(tmp_path: Path) -> None:
    arrays = network("daformer").state_dict()
    short = {name: tensor for name, tensor in arrays.items() if "fuse_layer.bottleneck.bn.w" not in name}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(LayoutError, match=r"short\.pth.*daformer\.bottleneck\.bn\.weight"):
        hf_lwmm.load(tmp_path / "short.pth")
    gone = {name: tensor for name, tensor in arrays.items() if "stages.0.patch_embeddings.proj.weight" not in name}
    torch.save(gone, tmp_path / "gone.pth")
    with pytest.raises(LayoutError, match=r"gone\.pth: The checkpoint has no mit\.stage0\.embed\.proj\.weight"):
        hf_lwmm.load(tmp_path / "gone.pth")
    flat = {name: tensor.flatten() if "bottleneck.conv" in name else tensor for name, tensor in arrays.items()}
    torch.save(flat, tmp_path / "flat.pth")
    with pytest.raises(LayoutError, match=r"flat\.pth: its shapes do not make a DAFormer: "):
        hf_lwmm.load(tmp_path / "flat.pth")
    torch.save(arrays, tmp_path / "whole.pth")
    with pytest.raises(PlanError, match="is not a label set"):
        hf_lwmm.load(tmp_path / "whole.pth", NetworkOptions(labels=("cityscapes",)))
    with pytest.raises(LayoutError, match=r"whole\.pth: --system advent does not apply"):
        hf_lwmm.load(tmp_path / "whole.pth", NetworkOptions(system="advent"))
    write(tmp_path / "pvt.safetensors", stored("timm_pvt_v2_b2"))
    with pytest.raises(LayoutError, match="there is no network for PVTv2-B2"):
        hf_lwmm.load(tmp_path / "pvt.safetensors")


def test_a_repository_that_contradicts_itself_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = saved(network("daformer"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for wrong, fault in (
        ({"depths": "deep"}, "config.json does not make a DAFormer: .*depths"),
        ({"hidden_sizes": [8]}, "config.json does not make a DAFormer: "),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(CheckpointError, match=fault):
            hf_lwmm.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    for settings in ("{", "[]", '{"image_processor_type": "SegmentationImageProcessor", "channel_order": "bgr"}'):
        (folder / "preprocessor_config.json").write_text(settings)
        with pytest.raises((CheckpointError, DocumentError), match=r"model.* preprocessor_config\.json"):
            hf_lwmm.load(folder)


def test_a_configuration_of_too_many_layers_is_refused_and_the_model_named_once(tmp_path: Path) -> None:
    from transformers import SegformerConfig, SegformerForImageClassification

    small = SegformerConfig(depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8)
    SegformerForImageClassification(small).save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps({**config, "depths": [1, 1, 10_000, 1]}))
    with pytest.raises(CheckpointError, match=r"^model: its config.json asks for depths \[1, 1, 10000, 1\], more"):
        hf_lwmm.load(tmp_path / "model")


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    folder = saved(network("daformer"), tmp_path / "model")
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    settings = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    loaded = hf_lwmm.load(folder)
    assert loaded.notes == ("model: its image processor (Own) cannot be used; the original's settings are used",)
    assert loaded.image_processor.size == {"shortest_edge": 512, "longest_edge": 1024}
    assert not (tmp_path / "ran").exists()


def test_glc_and_conmix_classifiers_load_from_their_own_names(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(write(tmp_path / "glc.safetensors", stored("glc_sfunida_resnet50", shrink=16)))
    assert isinstance(loaded.model, BottleneckForImageClassification) and loaded.task == "classification"
    assert isinstance(loaded.model.config, BottleneckConfig) and loaded.model.config.width == 4
    assert len(loaded.classes) == 15


# What importing costs


def printed(code: str, forks: Forks | None = None) -> str:
    if forks is not None:
        ran = forks.run(code)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


KNOWN = "print('hf-lwmm-daformer' in transformers.models.auto.configuration_auto.CONFIG_MAPPING)"


@pytest.mark.parametrize("lines", ["import hf_lwmm, transformers", "import transformers, hf_lwmm"])
def test_importing_the_package_leaves_transformers_alone(lines: str, forks: Forks) -> None:
    alone = "import sys, hf_lwmm; print(sorted({'torch', 'transformers'} & set(sys.modules)), len(sys.meta_path))"
    bare = "import sys; print([], len(sys.meta_path))"
    assert printed(alone) == printed(bare)
    assert printed(f"{lines}; import transformers.models.auto; {KNOWN}", forks) == "False\n"


@pytest.mark.parametrize(
    "lines",
    [
        "import hf_lwmm.networks.loading; from transformers import PreTrainedModel",
        "from transformers import SegformerForSemanticSegmentation; import hf_lwmm.networks",
    ],
)
def test_importing_the_networks_registers_them_with_the_auto_classes(lines: str, forks: Forks) -> None:
    assert printed(f"{lines}; import transformers; {KNOWN}", forks) == "True\n"
