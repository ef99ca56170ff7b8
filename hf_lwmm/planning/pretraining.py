"""Judge whether two models come from one pre-training.

The verdict is the median cosine of the backbone's weights, each with the mean over its units (dim 0) taken out, since
what all units have in common does not show which unit is which. It was calibrated on small networks of 12 to 70 such
weights (SegFormer, DeepLabV2, ResNet, ESPNetv2; scripts/bench/pretraining.py makes the first two):

| pair | median cosine | verdict |
| --- | --- | --- |
| one pre-training, fine-tuned or at other points of it | 0.86 to 1.00 | same, from 0.7 |
| one random start, trained apart for 600 steps | 0.77 to 0.88 | same |
| one random start, trained apart for 750 to 3,000 steps | 0.37 to 0.52 | unclear |
| two trainings, random weights, or the same network with its units permuted | -0.02 to 0.01 | different, up to 0.2 |

So "same" says that two models are still near a common start, which a merge needs; it does not say how much was learned
there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.layouts import in_backbone
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.text import near_one

_SMALLEST = 256  # elements of a weight that the verdict is taken from
_SAMPLE = 1 << 12  # elements read of each weight, about
SAME, DIFFERENT = 0.7, 0.2  # median cosines, from the table above


@dataclass(frozen=True)
class Verdict:
    """The verdict on two models' pre-training: `answer` is same, unclear or different.

    `cosine` is the median over `slots` backbone weights, and `relative` that of the distances ||a - b|| / ||a||; they
    are None if there is no such weight. `families` are those of the backbones where two families share one layout, such
    as CLIP ViT and DINOv2 ViT; None for two of one family.
    """

    models: tuple[str, str]
    answer: str
    cosine: float | None
    slots: int
    relative: float | None = None
    families: tuple[str, str] | None = None

    @property
    def message(self) -> str:
        """A sentence or two for the models' user."""
        first, other = self.models
        if self.cosine is None:
            return f"{first} and {other} have no weights that show whether they come from the same pre-training."
        far = f", relative L2 distance {self.relative:.2g}" if self.relative is not None else ""
        figures = f"median cosine {near_one(self.cosine)}{far}, over {self.slots} weights"
        if self.answer == "same":
            return f"{first} and {other} look like they come from the same pre-training ({figures})."
        if self.answer == "unclear":
            return (
                f"It is not clear whether {first} and {other} come from the same pre-training ({figures}; "
                f"{SAME} or more is usual). Score the merge before you use it."
            )
        if self.families is not None:
            remedy = f"{first} is a {self.families[0]}, {other} a {self.families[1]}: merge models fine-tuned from one."
        else:
            remedy = "Merge models fine-tuned from one. --permute helps MiTs and ResNets with units in another order."
        return (
            f"{first} and {other} do not look like they come from the same pre-training ({figures}; {SAME} or more is "
            f"usual), so the merge may be useless. {remedy}"
        )


def same_pretraining(first: Checkpoint, second: Checkpoint) -> Verdict:
    """Judge from a sample of their backbones whether two models come from one pre-training.

    The verdict rests on backbone weights of two and more dimensions and at least 256 elements; only the first rows of
    each are read, about 4,096 elements. A network that no layout knows counts as a backbone as a whole.

    Raises:
        CheckpointError: if the checkpoints cannot be read.
    """
    found = [_unit_cosine(first, second, slot) for slot in _telling_slots(first, second)]
    known = [cosine for cosine, _ in found if cosine is not None]
    distances = [relative for _, relative in found if relative is not None]
    median = float(np.median(known)) if known else None
    answer = "unclear"
    if median is not None and not DIFFERENT < median < SAME:
        answer = "same" if median >= SAME else "different"
    relative = float(np.median(distances)) if distances else None
    return Verdict(model_names(first, second), answer, median, len(known), relative, _families(first, second))


def pretraining_warnings(plan: MergePlan) -> tuple[str, ...]:
    """Return a warning for each model that does not clearly share the anchor's pre-training.

    The plan's checkpoints must be readable. A merge that permutes units gets no warning.
    """
    if plan.permutes:
        return ()
    others = (model for model in plan.checkpoints if model is not plan.anchor)
    verdicts = (same_pretraining(plan.anchor, model) for model in others)
    return tuple(verdict.message for verdict in verdicts if verdict.answer != "same")


def _families(first: Checkpoint, second: Checkpoint) -> tuple[str, str] | None:
    """The families of both backbones; None if they are of one, or no layout knows them."""
    one, other = first.slot_map, second.slot_map
    if one.backbone is None or other.backbone is None or one.kin == other.kin:
        return None
    return f"{one.kin} {one.backbone.title}".strip(), f"{other.kin} {other.backbone.title}".strip()


def _telling_slots(first: Checkpoint, second: Checkpoint) -> Iterator[str]:
    ours, theirs = first.slot_map.slots, second.slot_map.slots
    for slot, atom in ours.items():
        if slot not in theirs or theirs[slot].shape != atom.shape:
            continue
        floats = all(is_float(c.tensors[c.slot_map.slots[slot].tensor].dtype) for c in (first, second))
        placed = in_backbone(slot) or first.slot_map.backbone is None
        if floats and placed and len(atom.shape) > 1 and math.prod(atom.shape) >= _SMALLEST:
            yield slot


def _unit_cosine(first: Checkpoint, second: Checkpoint, slot: str) -> tuple[float | None, float | None]:
    """The cosine of a slot's first rows, without the mean over units, and their relative distance."""
    shape = first.slot_map.slots[slot].shape
    width = math.prod(shape[1:])
    rows = min(shape[0], max(2, _SAMPLE // width))
    a, b = (each.slot_values(slot, 0, rows * width).reshape(rows, width) for each in (first, second))
    relative = relative_of(float(np.linalg.norm(a - b)), float(np.linalg.norm(a)))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return cosine_of(float((a * b).sum()), float(np.linalg.norm(a)), float(np.linalg.norm(b))), relative


def model_names(first: Checkpoint, second: Checkpoint) -> tuple[str, str]:
    """Return the labels of two models, numbered where they would be the same."""
    if first.label != second.label:
        return first.label, second.label
    return f"{first.label} (1)", f"{second.label} (2)"


def relative_of(distance: float, norm: float) -> float | None:
    """Return the distance of two vectors relative to the first one's norm; None where only the second is not zero."""
    if distance == 0:
        return 0.0
    return distance / norm if norm and math.isfinite(distance) else None


def cosine_of(dot: float, norm: float, norm_other: float) -> float | None:
    """Return the cosine of two vectors from their inner product and norms; None if one is zero."""
    if not (norm and norm_other and math.isfinite(dot)):
        return None
    return max(-1.0, min(1.0, dot / norm / norm_other))
