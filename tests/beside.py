"""What stands beside the weights of small models: image processors of every age, and other entries of config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

PROCESSOR = "preprocessor_config.json"
PLAIN = {
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": {"height": 32, "width": 32},
}
OLD = {**PLAIN, "size": 32, "resample": 2, "do_reduce_labels": True}
OWN = "its image processor (Own) cannot be used; the original's settings are used"
# By name: the file, its content, and the class that reads it as transformers does.
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "an extractor": (PROCESSOR, {**OLD, "feature_extractor_type": "SegformerFeatureExtractor"}),
    "an extractor twice": (
        PROCESSOR,
        {
            **OLD,
            "feature_extractor_type": "SegformerFeatureExtractor",
            "image_processor_type": "SegformerFeatureExtractor",
        },
    ),
    "a class": (PROCESSOR, {**PLAIN, "image_processor_type": "SegformerImageProcessor"}),
    "a fast one": (PROCESSOR, {**PLAIN, "image_processor_type": "SegformerImageProcessorFast"}),
    "one of PIL": (PROCESSOR, {**PLAIN, "image_processor_type": "SegformerImageProcessorPil"}),
    "no class": (PROCESSOR, PLAIN),
    "a processor's": (
        "processor_config.json",
        {"image_processor": {**PLAIN, "image_processor_type": "SegformerImageProcessor"}},
    ),
}


def with_file(folder: Path, model: Path, name: str, content: Any) -> Path:
    """A copy of a model with another file beside its weights; texts are written as they are."""
    shutil.copytree(model, folder)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / name).write_bytes(text)
    return folder


def edited(folder: Path, model: Path, **entries: Any) -> Path:
    """A copy of a model with other entries in its config.json."""
    config = json.loads((model / "config.json").read_text())
    return with_file(folder, model, "config.json", {**config, **entries})
