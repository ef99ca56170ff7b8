"""An anchor whose config.json promises parts that its weights lack: a warning, and a card without a task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file
from tiny import TWO_STAGES, segformer
from transformers import ViTConfig, ViTForImageClassification

import hf_lwmm


def without(folder: Path, part: str, output: Path) -> Path:
    """A model as it is, but for the tensors with a part in their names."""
    output.mkdir()
    stored = load_file(folder / "model.safetensors")
    save_file({name: each for name, each in stored.items() if part not in name}, output / "model.safetensors")
    (output / "config.json").write_bytes((folder / "config.json").read_bytes())
    return output


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("decode_head", "11 slots (segformer.proj0.weight"),
        ("classifier", "lack 2 slots (segformer.classifier.weight, segformer.classifier.bias)"),
        ("block.0.0.attention.self.query", "2 slots (mit.stage0.block0.attn.q.weight"),
    ],
)
def test_a_merge_without_promised_parts_warns_and_its_card_states_no_task(
    part: str, named: str, without_plots: None, tmp_path: Path
) -> None:
    parents = [segformer(tmp_path / str(seed), seed, stages=TWO_STAGES) for seed in (1, 2)]
    halves = [without(each, part, tmp_path / f"half{i}") for i, each in enumerate(parents)]
    result = hf_lwmm.merge(halves, output=tmp_path / "out")
    assert any("describes a SegformerForSemanticSegmentation" in each and named in each for each in result.warnings)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.pipeline_tag is None and card.data.library_name == "hf-lwmm"
    assert "semantic-segmentation" not in card.data.tags and "from_pretrained" not in card.text
    whole = hf_lwmm.merge(parents, output=tmp_path / "whole")
    assert not any("lack" in each for each in whole.warnings)
    assert ModelCard.load(tmp_path / "whole/README.md").data.pipeline_tag == "image-segmentation"


def test_weights_of_other_shapes_than_promised_are_named(without_plots: None, tmp_path: Path) -> None:
    folder = segformer(tmp_path / "one", 1, stages=TWO_STAGES)
    config = json.loads((folder / "config.json").read_text())
    sizes = [*config["hidden_sizes"][:-1], 2 * config["hidden_sizes"][-1]]
    (folder / "config.json").write_text(json.dumps(config | {"hidden_sizes": sizes}))
    result = hf_lwmm.merge([folder, folder], output=tmp_path / "out")
    assert any("slots in its shapes (mit.stage1." in each and "or refuse it" in each for each in result.warnings)
    assert "from_pretrained" not in (tmp_path / "out/README.md").read_text()


def test_a_configuration_that_cannot_be_followed_promises_nothing_that_is_known(
    without_plots: None, tmp_path: Path
) -> None:
    for name, entries in (("odd", {"hidden_sizes": "none"}), ("endless", {"depths": [10**12, 1]})):
        folder = segformer(tmp_path / name, 1, stages=TWO_STAGES)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entries))
        warnings = hf_lwmm.merge([folder, folder], output=tmp_path / f"{name}-out").warnings
        assert any("lack most layers" in each for each in warnings) is (name == "endless")


def test_a_class_with_a_head_needs_more_than_a_backbone(without_plots: None, tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(tmp_path / "whole")
    bare = without(tmp_path / "whole", "classifier", tmp_path / "bare")
    warnings = hf_lwmm.merge([bare, bare], output=tmp_path / "out").warnings
    assert any("ViTForImageClassification, of which its weights lack its head" in each for each in warnings)
    assert not any("lack" in each for each in hf_lwmm.merge([tmp_path / "whole"] * 2, output=tmp_path / "2").warnings)
