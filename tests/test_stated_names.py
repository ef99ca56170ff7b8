"""A config.json beside tensors of another code base's names: the merge has the names that its class reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import Run
from PIL import Image
from safetensors.torch import load_file, save_file
from small_networks import LABELS, MIT, network, saved
from transformers import (
    AutoImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import hf_lwmm
from hf_lwmm.networks import SegformerMMSegConfig, SegformerMMSegForSemanticSegmentation

pytestmark = pytest.mark.usefixtures("without_plots")


def resnet() -> Any:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, **LABELS)
    return ResNetForImageClassification(config)


def vit() -> Any:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    return ViTForImageClassification(ViTConfig(image_size=64, patch_size=32, **sizes, **LABELS))


def mmseg() -> Any:
    return SegformerMMSegForSemanticSegmentation(SegformerMMSegConfig(decoder_hidden_size=8, **MIT))


MADE: Mapping[str, Callable[[], Any]] = {
    "segformer": lambda: network("segformer", 1), "daformer": lambda: network("daformer", 1),
    "resnet": resnet, "vit": vit, "mmseg": mmseg,
}  # fmt: skip


def named(folder: Path, name: str, to: str, *, prefix: str = "", file: str = "x.pth") -> Any:
    """Write a network as weights under a code base's names, beside its own config.json; return it."""
    torch.manual_seed(1)
    model = MADE[name]().eval()
    own = saved(model, folder / "own")
    hf_lwmm.convert(own, folder / "named.safetensors", to=to)
    state = {prefix + key: tensor for key, tensor in load_file(folder / "named.safetensors").items()}
    if file.endswith(".pth"):
        torch.save({"state_dict": state, "meta": {"iter": 1}}, folder / file)
    else:
        save_file(state, folder / file)
    shutil.copy(own / "config.json", folder)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    (folder / "named.safetensors").unlink()
    shutil.rmtree(own)
    return model


@pytest.mark.parametrize(
    ("name", "to", "prefix", "file"),
    [
        ("segformer", "nvidia", "", "x.pth"),
        ("segformer", "nvidia", "model.", "x.pth"),
        ("segformer", "smp", "", "model.safetensors"),
        ("daformer", "daformer", "", "x.pth"),
        ("resnet", "torchvision", "module.", "x.pth"),
        ("vit", "timm", "", "model.safetensors"),
    ],
)
def test_the_class_of_the_config_json_reads_every_tensor(
    name: str, to: str, prefix: str, file: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    model = named(tmp_path / "d", name, to, prefix=prefix, file=file)
    stated = json.loads(Path("d", "config.json").read_text())
    code, out, err = run("merge", "d", "d", "--output", "out", "--format", "transformers")
    assert code == 0 and "get the names that the network of its config.json has" in out + err, err
    again, info = type(model).from_pretrained("out", output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        pixels = torch.randn(1, 3, 64, 64)
        assert torch.equal(again.eval()(pixels).logits, model(pixels).logits)
        assert torch.equal(hf_lwmm.load("d").model(pixels).logits, model(pixels).logits)
    written = json.loads(Path("out", "config.json").read_text())
    assert written == {**stated, **({"auto_map": written["auto_map"]} if name == "daformer" else {})}


def test_a_config_json_of_another_network_is_refused_with_a_next_step(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    named(tmp_path / "d", "mmseg", "mmseg")
    config = {"architectures": ["SegformerForSemanticSegmentation"], "model_type": "segformer", **MIT}
    Path("d", "config.json").write_text(json.dumps(config))
    code, _, err = run("merge", "d", "d", "--output", "out")
    assert code == 1 and not Path("out").exists()
    assert "its config.json is that of SegformerForSemanticSegmentation, which does not find its tensors" in err
    assert "They cannot be renamed: they make a MMSegmentation SegFormer." in err and "--format safetensors" in err
    code, _, err = run("merge", "d", "d", "--output", "out", "--format", "safetensors")
    card = Path("out", "README.md").read_text()
    assert code == 0 and 'hf_lwmm.load("out")' in card and "from_pretrained" not in card and "pipeline(" not in card
    assert "library_name: hf-lwmm" in card


def test_a_config_json_of_kin_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    named(tmp_path / "d", "vit", "timm")
    config = {"architectures": ["Dinov2ForImageClassification"], "model_type": "dinov2"}
    Path("d", "config.json").write_text(json.dumps(config))
    code, _, err = run("merge", "d", "d", "--output", "out")
    assert code == 1 and "They cannot be renamed: they would be those of vit/transformers" in err


def test_a_config_json_of_another_size_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    named(tmp_path / "d", "segformer", "nvidia")
    config = json.loads(Path("d", "config.json").read_text())
    Path("d", "config.json").write_text(json.dumps({**config, "depths": [1, 1, 1, 2]}))
    code, _, err = run("merge", "d", "d", "--output", "out")
    assert code == 1 and "slots are missing (mit.stage3.block1." in err


def test_heads_that_no_tensor_shows_come_from_the_config_json(run: Run, tmp_path: Path) -> None:
    odd = {**MIT, "hidden_sizes": [8, 16, 24, 36], "num_attention_heads": [1, 2, 3, 4]}
    torch.manual_seed(1)
    model = SegformerForSemanticSegmentation(SegformerConfig(decoder_hidden_size=16, **odd)).eval()
    own = saved(model, tmp_path / "own")
    Image.new("RGB", (64, 64), "gray").save("p.png")
    code, _, err = run("convert", "own", "d/x.pth", "--to", "nvidia")
    assert code == 0 and "only its config.json says that its stages have 1, 2, 3, 4 attention heads" in err
    assert "copy it beside the weights, and name both: FOLDER/:x.pth" in err
    code, _, err = run("predict", "d/x.pth", "p.png", "--labels", "road,sky,car", "--output", "alone")
    assert code == 1 and "config.json, which says it, beside the file, and name both: FOLDER/:FILE." in err
    shutil.copy(own / "config.json", "d")
    code, _, err = run("inspect", "d/x.pth")
    assert code == 0 and "left out the config.json beside it; to read it, too, name d/:x.pth" in err
    for model, folder in (("d/:x.pth", "one"), ("own", "other")):
        code, _, err = run("predict", model, "p.png", "--output", folder)
        assert code == 0, err
    assert Path("one/p_labels.png").read_bytes() == Path("other/p_labels.png").read_bytes()
    assert run("merge", "d/:x.pth", "d/:x.pth", "--output", "out")[0] == 0
    assert json.loads(Path("out/config.json").read_text())["num_attention_heads"] == [1, 2, 3, 4]
    assert AutoImageProcessor.from_pretrained("out").size == {"height": 512, "width": 512}


def test_a_converted_published_size_needs_no_config_json(run: Run, tmp_path: Path) -> None:
    saved(network("segformer", 1), tmp_path / "own")
    code, _, err = run("convert", "own", "x.pth", "--to", "nvidia")
    assert code == 0 and "attention heads" not in err


def test_a_backbone_within_another_network_keeps_its_names(run: Run, tmp_path: Path) -> None:
    """Detectors of transformers have torchvision's names for their ResNet."""
    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)
    hf_lwmm.convert(saved(transformers.ResNetModel(config), tmp_path / "own"), tmp_path / "x.safetensors", to="timm")
    (tmp_path / "d").mkdir()
    state = {f"model.backbone.conv_encoder.model.{k}": v for k, v in load_file(tmp_path / "x.safetensors").items()}
    save_file(state, tmp_path / "d" / "model.safetensors")
    Path("d", "config.json").write_text(json.dumps({"architectures": ["DetrModel"], "model_type": "detr"}))
    code, _, err = run("merge", "d", "d", "--output", "out")
    assert code == 0, err
    assert load_file("out/model.safetensors").keys() == state.keys()
