"""The files beside the weights, changed in their values and in their bytes, in folders of models without a network."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from fuzz.changes import TEXTS, changed_bytes, changed_json, changed_yaml
from fuzz.harness import Target, write_anew
from safetensors.numpy import save_file

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.publishing.card import render_card
from hf_lwmm.publishing.licences import merged_licence
from hf_lwmm.recipes.recipe import recipe_of

_TENSORS = {
    "encoder.conv.weight": (4, 3),
    "encoder.conv.bias": (4,),
    "classifier.weight": (3, 4),
    "classifier.bias": (3,),
}
_CONFIG = {
    "architectures": ["SomeNetwork"],
    "model_type": "some-network",
    "id2label": {"0": "road", "1": "sky", "2": "car"},
    "label2id": {"road": 0, "sky": 1, "car": 2},
    "torch_dtype": "float32",
    "_name_or_path": "org/a",
}


def _model(folder: Path, seed: int) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    arrays = {name: draw.random(shape, np.float32) for name, shape in _TENSORS.items()}
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    return folder


def index(folder: Path) -> Target:
    """Each tensor is read from the file that the index names for it."""
    model = folder / "model"
    model.mkdir()
    arrays = [{name: np.full(shape, file, np.float32) for name, shape in _TENSORS.items()} for file in (1, 2)]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    halves = list(_TENSORS)[:2], list(_TENSORS)[2:]
    for name, half, values in zip(names, halves, arrays, strict=True):
        save_file({tensor: values[tensor] for tensor in half}, model / name)
    listed = {tensor: name for name, half in zip(names, halves, strict=True) for tensor in half}
    seeds = [json.dumps({"metadata": {"total_size": 100}, "weight_map": listed}).encode()]

    def check(content: bytes) -> str:
        write_anew(model / "model.safetensors.index.json", content)
        checkpoint = open_checkpoint(hub.resolve(hub.parse_ref(model)))
        try:
            stated = json.loads(content.decode("utf-8-sig"))["weight_map"]
            for tensor in checkpoint.tensors:
                raw = np.empty(4, np.uint8)
                checkpoint.read_elements(tensor, 0, raw)
                assert raw.view(np.float32)[0] == 1 + names.index(stated[tensor]), f"{tensor} is of another file"
        finally:
            checkpoint.close()
        return "read"

    return Target(seeds, changed_json, check)


def config(folder: Path) -> Target:
    """A configuration does not change what is merged; class names are those of its id2label, or unknown."""
    plain, changed = _model(folder / "a", 1), _model(folder / "b", 2)
    wanted = [(slot.slot, slot.position) for slot in hf_lwmm.plan([plain, changed]).alignment.shared]

    def check(content: bytes) -> str:
        write_anew(changed / "config.json", content)
        info = hf_lwmm.inspect(changed)
        plan = hf_lwmm.plan([plain, changed])
        twice = info.classes is not None and len(set(info.classes)) < len(info.classes)
        assert not twice or any("two classes" in note for note in info.notes), "classes of one name without a note"
        if info.classes in (("road", "sky", "car"), None):
            assert [(slot.slot, slot.position) for slot in plan.alignment.shared] == wanted, "another merge"
        return "read"

    return Target([json.dumps(_CONFIG).encode()], changed_json, check)


_CARD = """---
license: mit
datasets: [org/streets]
language: en
tags: [segmentation]
widget: [{src: "https://x.y/a.jpg", example_title: A street}]
model-index: [{name: a, results: []}]
---
# A model

It sees streets.
"""
_HEADINGS = (
    *("# title", "## Intended use and limits", "## What was merged", "## Use", "## Make it again", "## Citation"),
)


def card(folder: Path) -> Target:
    """The card of a merge has its own headings and valid metadata, whatever the cards of its parents say."""
    from huggingface_hub import ModelCard

    models = [_model(folder / name, seed) for seed, name in enumerate("ab")]
    plan = hf_lwmm.plan(models)
    recipe = recipe_of(plan, ({}, {}), {"model.safetensors": "0" * 64})

    def check(content: bytes) -> str:
        for model in models:  # the anchor's offers pictures to try, too
            write_anew(model / "README.md", content)
        sources = [hub.resolve(hub.parse_ref(model)) for model in models]
        parents = tuple(
            replace(parent, source=source) for parent, source in zip(plan.checkpoints, sources, strict=True)
        )
        licence = merged_licence([parent.source for parent in parents])
        text = render_card(replace(plan, checkpoints=parents), recipe, licence, "title", None)
        found = ModelCard(text)
        assert found.data.to_dict()["tags"], "no tags"
        body, code = [], False
        for line in found.text.splitlines():
            code ^= line.startswith("```")
            if line.startswith("#") and not code:
                body.append(line)
        assert tuple(body) == _HEADINGS, "other headings"
        return "noted" if sources[1].notes else "read"

    def change(content: bytes, draw: random.Random, other: bytes) -> bytes:
        if draw.random() < 0.3:
            return changed_bytes(content, draw, other, TEXTS)
        metadata, rest = content[4:].split(b"---\n", 1)
        return b"---\n" + changed_yaml(metadata, draw, metadata) + b"---\n" + rest

    return Target([_CARD.encode()], change, check)
