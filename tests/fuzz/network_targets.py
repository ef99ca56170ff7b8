"""Configurations of networks and of image processors, changed in their values and in their bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.changes import changed_json
from fuzz.harness import Target, write_anew
from PIL import Image
from tiny import TWO_STAGES, segformer

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint

_PROCESSORS = (
    {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_reduce_labels": False,
    },
    {"feature_extractor_type": "SegformerFeatureExtractor", "size": 32, "do_resize": True},
)


def config(folder: Path) -> Target:
    """A network is that of its configuration, as transformers reads it."""
    from transformers import AutoConfig

    model = segformer(folder / "model", 1, stages=TWO_STAGES)  # half the network is built in half the time
    seed = (model / "config.json").read_bytes()

    def check(content: bytes) -> str:
        write_anew(model / "config.json", content)
        loaded = hf_lwmm.load(model)
        try:
            theirs = AutoConfig.from_pretrained(model)
        except Exception:  # where transformers cannot read it, the slots decide
            return "read otherwise"
        if type(theirs) is type(loaded.model.config):
            for name in ("depths", "hidden_sizes", "num_attention_heads", "layer_norm_eps", "decoder_hidden_size"):
                pair = getattr(theirs, name), getattr(loaded.model.config, name)
                assert repr(pair[0]) == repr(pair[1]), f"another {name}"  # by their texts: NaN is not equal to itself
        return "read"

    return Target([seed], changed_json, check)


def _lengths(settings: Any) -> list[int]:
    """All whole numbers in the sizes of a processor's settings."""
    sizes = [settings.get(name) for name in ("size", "crop_size", "pad_size")]
    parts = [vars(each) if hasattr(each, "__dict__") else each for each in sizes]
    values = [each.values() if isinstance(each, Mapping) else each or () for each in parts]
    return [each for value in values for each in value if isinstance(each, int)]


def processor(folder: Path) -> Target:
    """Pictures are prepared as transformers' own reading of the file prepares them, or a note says why not."""
    from transformers import AutoConfig, AutoImageProcessor

    from hf_lwmm.networks.processors import image_processor

    model = segformer(folder / "model", 1)
    network = AutoConfig.from_pretrained(model)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8))

    def check(content: bytes) -> str:
        write_anew(model / "preprocessor_config.json", content)
        checkpoint, notes = open_checkpoint(hub.resolve(hub.parse_ref(model))), list[str]()
        checkpoint.close()
        found = image_processor(checkpoint, network, notes)
        if notes:
            return "noted"
        if any(length > 512 for length in _lengths(vars(found))):
            return "large"  # memory grows with what is asked for
        try:
            theirs = AutoImageProcessor.from_pretrained(model)(picture, return_tensors="pt")
        except Exception:  # transformers reads it, or prepares with it, no better
            return "read otherwise"
        ours = found(picture, return_tensors="pt")
        assert np.array_equal(ours["pixel_values"], theirs["pixel_values"]), "other pixels"
        return "read"

    return Target([json.dumps(each).encode() for each in _PROCESSORS], changed_json, check)
