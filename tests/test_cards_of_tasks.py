"""Cards of merges state the anchor's task, and the example on them runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from conftest import Run
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from safetensors.torch import save_file
from small_networks import MIT, network, saved
from transformers import PreTrainedModel, ViTImageProcessor, YolosImageProcessor

Make = Callable[[Path, int], Path]
NAMES = {"id2label": {0: "road", 1: "sky", 2: "car"}}
VIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
    **NAMES,
}  # fmt: skip
SIZE = {"height": 32, "width": 32}
PROCESSORS: Mapping[str, Any] = {
    "ViT": ViTImageProcessor(size=SIZE),
    "Yolos": YolosImageProcessor(do_resize=False, do_pad=False),
    "Segformer": transformers.SegformerImageProcessor(size=SIZE),
}


def perturbed(model: Any, seed: int) -> Any:
    """A model that looks like a training of the same beginning."""
    torch.manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.02 * torch.rand_like(tensor)
    return model


def of_transformers(name: str, *, processor: bool = True, **options: Any) -> Make:
    def make(folder: Path, seed: int) -> Path:
        torch.manual_seed(0)
        kind = re.match("ViT|Yolos|Segformer", name)[0]  # type: ignore[index]
        config = getattr(transformers, f"{kind}Config")(**options)
        model: PreTrainedModel = getattr(transformers, name)(config)
        if processor:
            PROCESSORS[kind].save_pretrained(folder)
        return saved(perturbed(model, seed), folder)

    return make


def of_timm(classes: int) -> Make:
    def make(folder: Path, seed: int) -> Path:
        torch.manual_seed(0)
        model = perturbed(timm.create_model("test_resnet", num_classes=classes), seed)
        timm.models.save_for_hf(model, folder, safe_serialization=True)
        return folder

    return make


def of_here(folder: Path, seed: int) -> Path:
    return saved(perturbed(network("edaps"), seed), folder)


def of_torchvision(folder: Path, seed: int) -> Path:
    model = perturbed(timm.create_model("resnet18", num_classes=0), seed)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def of_nobody(folder: Path, seed: int, card: str = "") -> Path:
    torch.manual_seed(seed)
    folder.mkdir()
    save_file({"a.weight": torch.rand(3, 3), "b.weight": torch.rand(3)}, folder / "model.safetensors")
    (folder / "README.md").write_text(f"---\nlicense: mit\n{card}---\n")
    return folder


def of_a_class(name: str, config: Mapping[str, Any], card: str = "") -> Make:
    """A network of a class of transformers, as far as its files tell."""

    def make(folder: Path, seed: int) -> Path:
        of_nobody(folder, seed, card)
        (folder / "config.json").write_text(json.dumps({"architectures": [name], **config}))
        return folder

    return make


def of_a_detector_of_nobody(folder: Path, seed: int) -> Path:
    return of_nobody(folder, seed, "pipeline_tag: object-detection\n")


SEGMENTER = of_transformers("SegformerForSemanticSegmentation", decoder_hidden_size=8, **MIT)
CLASSIFIER = of_transformers("SegformerForImageClassification", processor=False, **MIT)
BARE = of_transformers("SegformerModel", processor=False, **MIT)

# By the anchor: how it and the other model are made, the tag of the pipeline, the task's own tag, the library, and a
# part of the example.
CASES: dict[str, tuple[Make, Make, str | None, str | None, str, str]] = {
    "segmenter": (
        SEGMENTER, CLASSIFIER, "image-segmentation", "semantic-segmentation", "transformers",
        'segment = pipeline("image-segmentation", model="out")',
    ),
    "classifier": (
        of_transformers("ViTForImageClassification", **VIT), of_transformers("ViTForImageClassification", **VIT),
        "image-classification", "image-classification", "transformers",
        'classify = pipeline("image-classification", model="out")',
    ),
    "classifier without a processor": (
        CLASSIFIER, SEGMENTER, "image-classification", "image-classification", "transformers",
        'AutoModelForImageClassification.from_pretrained("out")',
    ),
    "detector": (
        of_transformers("YolosForObjectDetection", num_detection_tokens=3, **{**VIT, "image_size": [32, 32]}),
        of_transformers("YolosForObjectDetection", num_detection_tokens=3, **{**VIT, "image_size": [32, 32]}),
        "object-detection", "object-detection", "transformers", 'detect = pipeline("object-detection", model="out")',
    ),
    "panoptic": (
        of_here, of_here, "image-segmentation", "panoptic-segmentation", "transformers",
        'AutoModelForUniversalSegmentation.from_pretrained("out", trust_remote_code=True)',
    ),
    "features": (
        of_transformers("ViTModel", **VIT), of_transformers("ViTModel", **VIT), "image-feature-extraction",
        "feature-extraction", "transformers", 'extract = pipeline("image-feature-extraction", model="out")',
    ),
    "bare backbone": (
        BARE, SEGMENTER, "image-feature-extraction", "feature-extraction", "transformers",
        'AutoModel.from_pretrained("out")',
    ),
    "timm": (
        of_timm(4), of_timm(4), "image-classification", "image-classification", "timm",
        'timm.create_model("local-dir:out", pretrained=True)',
    ),
    "timm's backbone": (
        of_timm(0), of_timm(0), "image-feature-extraction", "feature-extraction", "timm",
        'timm.create_model("local-dir:out", pretrained=True)',
    ),
    "torchvision's backbone": (
        of_torchvision, of_torchvision, "image-feature-extraction", "feature-extraction", "hf-lwmm",
        'load_file("out/model.safetensors")',
    ),
    "stated by the card": (
        of_a_detector_of_nobody, of_nobody, "object-detection", "object-detection", "hf-lwmm",
        'load_file("out/model.safetensors")',
    ),
    "unknown": (of_nobody, of_nobody, None, None, "hf-lwmm", 'load_file("out/model.safetensors")'),
}  # fmt: skip


def test_timm_loads_a_folder_that_was_pushed_from_its_repository(run: Run, api: HfApi, tmp_path: Path) -> None:
    assert run("merge", of_timm(4)(tmp_path / "one", 1), of_timm(4)(tmp_path / "two", 2), "--output", "out")[0] == 0
    assert run("push", "out", "local/out-of-timm")[0] == 0
    card = Path(api.hf_hub_download("local/out-of-timm", "README.md")).read_text()
    assert 'timm.create_model("hf-hub:local/out-of-timm", pretrained=True)' in card and "local-dir" not in card


@pytest.mark.parametrize("case", CASES)
def test_a_card_states_the_anchors_task_and_its_example_runs(case: str, run: Run, tmp_path: Path) -> None:
    first, second, pipeline_tag, tag, library, example = CASES[case]
    code, _, err = run("merge", first(tmp_path / "one", 1), second(tmp_path / "two", 2), "--output", "out")
    assert code == 0, err
    card = ModelCard.load("out/README.md")
    assert card.data.pipeline_tag == pipeline_tag and card.data.library_name == library
    code_travels = ["custom_code"] if case == "panoptic" else []
    assert card.data.tags == ["merge", "lwmm", "layer-wise-model-merging", *([tag] if tag else []), *code_travels]
    (block,) = re.findall("```python\n(.*?)\n```", card.text, re.DOTALL)
    assert example in block
    for name in ("street.jpg", "picture.jpg"):
        Image.new("RGB", (64, 64), "gray").save(name)
    exec(compile(block, "the card", "exec"), {})


SAM, BERT = {"model_type": "sam", "vision_config": {}}, {"model_type": "bert", "vocab_size": 9}
VIDEO = {"model_type": "videomae", "image_size": 32, "num_channels": 3, "num_frames": 2}
DINO = {"model_type": "dinov2", "image_size": 32, "num_channels": 3}
BY_CARD: dict[str, tuple[Make, str | None]] = {
    "Sam": (of_a_class("SamModel", SAM, "pipeline_tag: mask-generation\n"), "mask-generation"),
    "Sam without a tag": (of_a_class("SamModel", SAM), None),
    "Bert": (of_a_class("BertModel", BERT), None),
    "VideoMAE": (of_a_class("VideoMAEModel", VIDEO), None),
    "Dinov2": (of_a_class("Dinov2Model", DINO), "image-feature-extraction"),
    "Dinov2 with a tag": (of_a_class("Dinov2Model", DINO, "pipeline_tag: zero-shot-x\n"), "zero-shot-x"),
    "own class": (of_a_class("Own", BERT, "pipeline_tag: fill-mask\n"), "fill-mask"),
    "no tag": (of_a_class("Own", BERT, "pipeline_tag: a b\n"), None),
}


@pytest.mark.parametrize("case", BY_CARD)
def test_the_anchors_card_states_the_task_that_its_class_does_not(case: str, run: Run, tmp_path: Path) -> None:
    make, pipeline_tag = BY_CARD[case]
    options = ("--method", "slerp", "--output", "out")
    code, _, err = run("merge", make(tmp_path / "one", 1), make(tmp_path / "two", 2), *options)
    assert code == 0, err
    card = ModelCard.load("out/README.md")
    assert card.data.pipeline_tag == pipeline_tag
    if pipeline_tag is None or not pipeline_tag.startswith("image"):
        assert "feature-extraction" not in card.data.tags
        assert (".from_pretrained" in card.text) is (case not in ("own class", "no tag"))  # transformers has no `Own`


@pytest.mark.parametrize(
    ("case", "says"),
    [("segmenter", "classes are the anchor's: 3 classes (road, sky, car)."), ("features", ""), ("timm", "")],
)
def test_a_card_speaks_of_classes_where_there_are_some(case: str, says: str, run: Run, tmp_path: Path) -> None:
    first, second, *_ = CASES[case]
    anchor = first(tmp_path / "one", 1)
    config = json.loads((anchor / "config.json").read_text())
    if case == "features":
        config.pop("id2label")
        (anchor / "config.json").write_text(json.dumps(config))
    assert run("merge", anchor, second(tmp_path / "two", 2), "--output", "out")[0] == 0
    card = Path("out/README.md").read_text()
    assert says in card and "does not name its classes" not in card and "do not name its classes" not in card


def test_the_example_for_a_pushed_merge_names_the_repository(run: Run, hub: Any, tmp_path: Path) -> None:
    code, _, err = run("merge", of_timm(4)(tmp_path / "a", 1), of_timm(4)(tmp_path / "b", 2), "--push", "local/of-timm")
    assert code == 0, err
    assert 'timm.create_model("hf-hub:local/of-timm", pretrained=True)' in ModelCard.load("local/of-timm").text
    assert timm.create_model("hf-hub:local/of-timm", pretrained=True).num_classes == 4


def test_names_of_files_run_nothing_in_the_example(run: Run, tmp_path: Path) -> None:
    name = 'x"); raise SystemExit("owned") #.pth'
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        torch.manual_seed(seed)
        torch.save({"a.weight": torch.rand(3, 3)}, tmp_path / str(seed) / name)
    assert run("merge", "1", "2", "--format", "torch", "--output", "out")[0] == 0
    (block,) = re.findall("```python\n(.*?)\n```", Path("out/README.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(block, "the card", "exec"), found)
    assert found["state_dict"].keys() == {"a.weight"}
