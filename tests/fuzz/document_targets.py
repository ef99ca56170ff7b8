"""Recipes, label files and lists of objects, changed in their values and in their bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import yaml
from fuzz.changes import TEXTS, changed_bytes, changed_json, changed_yaml
from fuzz.harness import Target, write_anew

from hf_lwmm.labels import normalise, read_label_set
from hf_lwmm.recipes.recipe import read_recipe

_HASH = "0" * 64
_RECIPES = (
    {
        "schema": 3,
        "models": [
            {"model": "org/a@abc", "sha256": {"model.safetensors": _HASH}},
            {"model": "org/b", "recorded": ["x.pth"]},
        ],
        "anchor": "org/a@abc",
        "method": {"name": "layerwise", "start": 0.5, "alpha": None},
        "knobs": {"share": "all", "head": "by-label", "keep": ["mit.stage1"], "labels": ["cityscapes19", ["a", "b"]]},
        "order": ["stem", "blocks.0.norm", "blocks.0.mlp.weight", "head"],
        "max_shard_size": 1000000,
        "output": {"model.safetensors": _HASH},
    },
    {
        "schema": 2,
        "models": ["org/a", "org/b"],
        "method": {"name": "task-arithmetic"},
        "base": {"model": "org/base"},
        "tuning": {"rows": [{"to": 3, "weights": [0.5, 0.5]}], "images": {"data": "org/images", "split": "train"}},
        "bn_images": {"data": "org/images@abc", "split": "train", "limit": 5},
        "system": "advent",
    },
    {
        "hf_lwmm": "0.1.0",
        "models": ["a/b", "c/d"],
        "method": "isotropic",
        "knobs": {"weights": "teacher", "bn": "pooled"},
    },
)


def recipe(folder: Path) -> Target:
    """A recipe that was read means the same after it was written and read again."""

    def check(content: bytes) -> str:
        found = read_recipe(content.decode("utf-8", "surrogateescape"))
        again = read_recipe(found.to_yaml())
        assert again.to_yaml() == found.to_yaml(), "means something else after it was written"
        return "read"

    return Target([yaml.safe_dump(each, sort_keys=False).encode() for each in _RECIPES], changed_yaml, check)


def labels(folder: Path) -> Target:
    """Class names are texts of which no two are the same."""
    path = folder / "classes"
    seeds = [
        b"road\nsky\n# cars\ncar\n",
        json.dumps(["road", "sky", "car"]).encode(),
        json.dumps({"id2label": {"0": "road", "1": "sky"}, "model_type": "segformer"}).encode(),
        json.dumps({"0": "road", "1": "sky"}).encode(),
    ]

    def change(content: bytes, draw: random.Random, other: bytes) -> bytes:
        if content[:1] in b"{[":
            return changed_json(content, draw, other)
        return changed_bytes(content, draw, other, TEXTS)

    def check(content: bytes) -> str:
        write_anew(path, content)
        classes = read_label_set(path).classes
        assert classes and all(isinstance(name, str) and name for name in classes), "classes without names"
        assert len({normalise(name) for name in classes}) == len(classes), "classes of one name"
        return "read"

    return Target(seeds, change, check)


def objects(folder: Path) -> Target:
    """Boxes lie between finite corners, and are of known classes."""
    from PIL import Image

    from hf_lwmm.data.loading import open_images

    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (8, 8)).save(folder / "val" / name)
    box = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0, "id": 5}
    listed = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "categories": [{"id": 7, "name": "car"}, {"id": 9, "name": "person"}],
        "annotations": [box, {**box, "category_id": 9, "iscrowd": 1}],
    }

    def check(content: bytes) -> str:
        write_anew(folder / "annotations" / "instances_val.json", content)
        images = open_images(folder, task="detection")
        for sample in images:
            assert sample.boxes is not None
            assert np.isfinite(sample.boxes.boxes).all(), "boxes without end"
            assert all(0 <= label < len(images.classes or ()) for label in sample.boxes.labels), "an unknown class"
        return "read"

    return Target([json.dumps(listed).encode()], changed_json, check)
