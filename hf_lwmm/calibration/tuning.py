"""Decide layer weights on images before a merge.

A method that decides its weights on images tries some: each trial writes the plan with the weights on trial into a
temporary folder, loads the network and runs it, and the outcome decides the next plan. Only here and in
`hf_lwmm.sweeping` do data go round in such a loop.
"""

from __future__ import annotations

from dataclasses import replace

from hf_lwmm.calibration.trials import NetworkTrials
from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.scratch import scratch_folder
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.planning.scoring import ScoringOptions
from hf_lwmm.progress import Progress, silent


def tune(
    plan: MergePlan,
    images: ImageSource,
    *,
    evaluation: EvaluationSpec = EvaluationSpec(),
    network: NetworkOptions = NetworkOptions(),
    progress: Progress = silent,
) -> MergePlan:
    """Return the plan with the layer weights that its method decides on images.

    Args:
        plan: a plan over checkpoints whose tensors can be read.
        images: the images to look at. Their labels are read only if the method needs them; the split is then
            validation if the source names none, and else train.
        evaluation: how merges are scored, for a method that needs labels.
        network: how networks are run. A method that follows gradients has them run in float32.

    Raises:
        DatasetError: if the images cannot be read, or have no labels although the method needs them.
        PlanError: if the method decides nothing on images, or cannot do so with this network.
        LayoutError: if there is no network for the anchor.
    """
    method = plan.method
    if not method.tuned:
        raise PlanError(f"--method {method.name} decides nothing on images; leave out --tune-data.")
    with scratch_folder() as folder:
        trials = NetworkTrials(plan, images, evaluation, network, folder, progress)
        weights, notes = method.decide(trials)
        scoring = evaluation.scoring if "labels" in method.needs else ScoringOptions()
        return replace(plan, tuning=Tuning(weights, trials.provenance, notes, scoring))
