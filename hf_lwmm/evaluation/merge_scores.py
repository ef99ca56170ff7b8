"""Score a merge beside its parents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.evaluate import evaluate
from hf_lwmm.evaluation.numbering import label_ids
from hf_lwmm.evaluation.protocols import scored_classes
from hf_lwmm.evaluation.report import EvaluationReport
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.loading import load
from hf_lwmm.planning.images import ImageSource, for_purpose, naming_options
from hf_lwmm.planning.inputs import MergeInputs, NetworkOptions
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.progress import Progress


def score_merge(
    plan: MergePlan, folder: Path, title: str, inputs: MergeInputs, spec: EvaluationSpec, progress: Progress
) -> EvaluationReport:
    """Score the anchor, which the others are compared with, the other parents, and last the merge in a folder.

    Raises:
        PlanError: in one of several processes.
        HfLwmmError: if a network or the images cannot be read.
    """
    assert inputs.eval_images is not None
    network = replace(inputs.network, labels=plan.knobs.labels, branch=plan.knobs.branch)
    parents = _parents(plan, network)
    labels = (plan.anchor.classes,) if plan.anchor.classes else network.labels
    merged = load(folder, replace(network, labels=labels), title)
    with naming_options("eval"):
        report = evaluate([*parents, merged], inputs.eval_images, spec, parents=len(parents), progress=progress)
    if report is None:
        raise PlanError("A merge runs in one process; start it without torchrun, and score it with evaluate.")
    return replace(report, notes=tuple(for_purpose(note, "eval") for note in report.notes))


def check_numbering(plan: MergePlan, images: ImageSource, network: NetworkOptions, spec: EvaluationSpec) -> None:
    """Refuse to score models that number the ids of labels in different ways, or labels of unknown ids.

    Raises:
        DatasetError: if they do, a label has such an id, or the images cannot be read.
    """
    parents = _parents(plan, replace(network, labels=plan.knobs.labels, branch=plan.knobs.branch))
    with naming_options("eval"):
        opened = open_images(images, task=parents[0].task)
        label_ids(opened, scored_classes(opened, parents, spec.protocol)[0])


def _parents(plan: MergePlan, network: NetworkOptions) -> Sequence[LoadedModel]:
    """The networks that are merged, the anchor first."""
    anchor = plan.alignment.anchor
    others = (each for index, each in enumerate(plan.checkpoints) if index != anchor)
    chosen = [plan.anchor, *others]
    return [load(each.source.exact, network, each.source.name) for each in chosen]
