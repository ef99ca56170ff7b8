"""Tell the task of a model from its configuration and its slots, and name it as the Hub does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows
from hf_lwmm.checkpoints.companions import class_count
from hf_lwmm.describing.libraries import SMP, TIMM, library_of
from hf_lwmm.describing.promised_parts import class_name, is_bare, lacking


@dataclass(frozen=True)
class Task:
    """A task: the Hub's name for it, its tag, and how a network for it is used with transformers.

    `use` has the words of the example: a verb, what comes out, and a picture.
    """

    name: str
    pipeline_tag: str
    tag: str
    auto_class: str
    use: tuple[str, str, str]


_EVERY = (
    Task(
        "semantic",
        "image-segmentation",
        "semantic-segmentation",
        "AutoModelForSemanticSegmentation",
        ("segment", "masks", "street.jpg"),
    ),
    Task(
        "panoptic",
        "image-segmentation",
        "panoptic-segmentation",
        "AutoModelForUniversalSegmentation",
        ("segment", "segments", "street.jpg"),
    ),
    Task(
        "classification",
        "image-classification",
        "image-classification",
        "AutoModelForImageClassification",
        ("classify", "classes", "picture.jpg"),
    ),
    Task(
        "detection",
        "object-detection",
        "object-detection",
        "AutoModelForObjectDetection",
        ("detect", "boxes", "street.jpg"),
    ),
    Task(
        "depth",
        "depth-estimation",
        "depth-estimation",
        "AutoModelForDepthEstimation",
        ("estimate", "depth", "street.jpg"),
    ),
    Task(
        "features",
        "image-feature-extraction",
        "feature-extraction",
        "AutoModel",
        ("extract", "features", "picture.jpg"),
    ),
)
TASKS = {task.name: task for task in _EVERY}

# By the end of the name of a network's class in transformers.
_CLASSES = {
    "ForSemanticSegmentation": "semantic",
    "ForUniversalSegmentation": "panoptic",
    "ForPanopticSegmentation": "panoptic",
    "ForInstanceSegmentation": "panoptic",
    "ForSegmentation": "panoptic",
    "ForImageClassification": "classification",
    "ForImageClassificationWithTeacher": "classification",
    "ForObjectDetection": "detection",
    "ForDepthEstimation": "depth",
}
_BARE = ("Model", "Backbone")  # how classes of networks without a head end, and those of some that have one
# By component; every other head that a layout knows segments.
_HEADS = {
    "imagenet": "classification",
    "bottleneck": "classification",
    "edaps_instance": "panoptic",
    "edaps_center": "panoptic",
}


def task_of(model: Checkpoint) -> Task | None:
    """Return a model's task; None if nothing in its files tells it, or it lacks parts of what its config.json tells."""
    if lacking(model):
        return None
    if name := class_name(model):
        found = next((task for ending, task in _CLASSES.items() if name.endswith(ending)), None)
        features = has_bare_class(model) and _sees_images(model)
        if found is None and features and _stated_tag(model) in (None, TASKS["features"].pipeline_tag):
            found = "features"
        return TASKS[found] if found else None
    library = library_of(model.config)
    if library == TIMM:
        return TASKS["features" if model.config.get("num_classes") == 0 else "classification"]
    if library == SMP:
        return TASKS["semantic"]
    heads = [match.layout.component.name for match in model.slot_map.matches if match.layout.component.kind == "head"]
    known = [_HEADS.get(name, "semantic") for name in heads]
    for name in ("panoptic", "classification", "semantic"):
        if name in known:
            return TASKS[name]
    return _stated(model) or (TASKS["features"] if is_bare(model) else None)


def pipeline_tag(model: Checkpoint) -> str | None:
    """Return the Hub's name for a model's task: that of `task_of`, or else what the model's card states.

    None for a model that lacks parts, which does not do what it is for.
    """
    if lacking(model):
        return None
    task = task_of(model)
    return task.pipeline_tag if task else _stated_tag(model)


def segments_by_one_row(model: Checkpoint) -> bool:
    """Return True for a head of one row that segments: its class is where the sigmoid of the row is above 1/2.

    No pipeline or widget shows that: they take the largest row of each pixel, which of one row is the same everywhere.
    """
    task = task_of(model)
    rows = classifier_rows(model.slot_map) or class_count(model.config)
    return task is not None and task.name == "semantic" and rows == 1


def has_bare_class(model: Checkpoint) -> bool:
    """Return True for a class of transformers whose name tells of no head."""
    return class_name(model).endswith(_BARE)


def _sees_images(model: Checkpoint) -> bool:
    """True if a configuration, or a known backbone, is one for single images."""
    config = model.config
    other = config.keys() & {"vocab_size", "num_frames", "num_mel_bins"}  # of texts, films and sounds
    return model.slot_map.backbone is not None or (bool(config.keys() & {"num_channels", "image_size"}) and not other)


def _stated_tag(model: Checkpoint) -> str | None:
    stated = model.source.card.get("pipeline_tag")
    return stated if isinstance(stated, str) and re.fullmatch("[a-z0-9-]{1,64}", stated) else None


def _stated(model: Checkpoint) -> Task | None:
    """The task that a model's card states."""
    return next((task for task in _EVERY if task.pipeline_tag == _stated_tag(model)), None)
