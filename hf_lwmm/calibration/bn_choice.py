"""Tell whether a merge is better with merged or with re-estimated BatchNorm statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hf_lwmm.calibration.merged_network import pixels_of
from hf_lwmm.data.unlabelled import ImageSequence
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.evaluate import evaluate
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.networks.finite import check_outputs
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.one_row import with_background
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.progress import Progress, silent


@dataclass(frozen=True)
class BnChoice:
    """The better of a network's merged and its re-estimated statistics, and a note that says how much better."""

    estimated: bool
    note: str


def better_bn_stats(
    merged: LoadedModel,
    estimated: LoadedModel,
    images: ImageSequence,
    source: ImageSource,
    spec: EvaluationSpec = EvaluationSpec(),
    *,
    partial: Path | None = None,
    progress: Progress = silent,
) -> BnChoice:
    """Compare two networks that differ in their running statistics alone, on the images that these were estimated on.

    Where the images have labels that fit the network, the higher score is better; else the lower mean entropy of the
    outputs, which tells less: a network can be sure and wrong. If they are equal, the merged statistics are kept.

    Args:
        merged: the network with merged statistics.
        estimated: the one with re-estimated statistics.
        images: the images, opened without labels.
        source: what was opened.
        spec: how networks are scored, if there are labels.
        partial: a folder for what evaluation keeps of an interrupted run.

    Raises:
        PlanError: if several processes share the work.
    """
    try:
        found = evaluate(
            [merged, estimated],
            source,
            replace(spec, ensemble=False, examples=0, groups=None),
            partial=partial,
            progress=progress,
        )
    except DatasetError:  # no labels, or those of other classes
        return _by_entropy(merged, estimated, images, progress)
    if found is None:
        raise PlanError("A merge runs in one process; start it without torchrun.")
    before, after = (model.mean for model in found.models)
    scores = f"{100 * after:.2f} {found.metric.name} re-estimated against {100 * before:.2f} merged"
    return _choice(after > before, images.name, scores)


def _by_entropy(merged: LoadedModel, estimated: LoadedModel, images: ImageSequence, progress: Progress) -> BnChoice:
    if merged.task == "detection":
        note = f"BatchNorm's statistics: re-estimated; {images.name} has no labels that tell whether that is better"
        return BnChoice(True, note)
    before, after = (mean_entropy(each, images, progress) for each in (merged, estimated))
    entropies = (
        f"no labels that fit, so by the entropy of outputs: {after:.4f} re-estimated against {before:.4f} merged"
    )
    return _choice(after < before, images.name, entropies)


def _choice(estimated: bool, name: str, figures: str) -> BnChoice:
    kept = "re-estimated" if estimated else "merged"
    return BnChoice(estimated, f"BatchNorm's statistics: kept the {kept} ones ({name}: {figures})")


@torch.no_grad()
def mean_entropy(loaded: LoadedModel, images: ImageSequence, progress: Progress = silent) -> float:
    """Return the entropy of a network's softmax outputs, relative to that of equal probabilities, over all images."""
    model: Any = loaded.model
    total = 0.0
    for index in range(images.count):
        progress("Comparing", index, images.count)
        image = images.read(index)
        pixels = pixels_of(loaded, [image.image])
        logits = model(pixels).logits.float()
        check_outputs(loaded, logits, pixels, f"{images.name}, {image.name}")
        if loaded.task == "semantic":
            logits = with_background(logits)
        total += float(torch.special.entr(logits.softmax(1)).sum(1).mean()) / math.log(logits.shape[1])
    return total / images.count
