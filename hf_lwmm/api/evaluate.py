"""Score models on a labelled data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect, expect_list
from hf_lwmm.errors import naming_extras
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.hub.refs import Ref, parse_ref
from hf_lwmm.planning.images import ImageSource, as_images
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.progress import Progress, silent

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport
    from hf_lwmm.networks.loaded_model import LoadedModel


@naming_extras("Evaluating networks", images=True)
def evaluate(
    models: Sequence[Ref | LoadedModel],
    images: ImageSource | str | Path,
    *,
    evaluation: EvaluationSpec = EvaluationSpec(),
    network: NetworkOptions = NetworkOptions(),
    progress: Progress = silent,
) -> EvaluationReport | None:
    """Score models on a split of a data set; the first is the anchor that the others are compared with.

    Merges, by a recipe that makes their very files or by their card, and the ensemble are also compared with the best
    of the other models. Under `accelerate launch` or `torchrun` every process scores its part of the images. A
    run that was killed goes on where it stopped.

    Args:
        models: references, as for `merge`, or networks that `load` returned.
        images: the data set, which may be given by its name alone; the split is validation if it names none. The task
            of the first model decides which of several kinds of labels are read.
        evaluation: which classes are scored, on which views of the images, and how many examples are drawn.
        network: how models that are given as references become networks.
        progress: called with the number of images that are done.

    Returns:
        The scores with 95 % intervals over images; None in all processes but the first.

    Raises:
        DatasetError: if the data set cannot be read, or its classes not be matched with those of a model.
        HfLwmmError: another subclass, if a model cannot be loaded, or the options make no sense for the task.
    """
    expect_list(models, "models")
    expect(evaluation, EvaluationSpec, "evaluation")
    expect(network, NetworkOptions, "network")
    source = as_images(images)
    from hf_lwmm.evaluation.evaluate import evaluate as evaluate_networks
    from hf_lwmm.networks.loaded_model import LoadedModel
    from hf_lwmm.networks.loading import load

    refs = [each.source.ref if isinstance(each, LoadedModel) else parse_ref(each) for each in models]
    names = hub.telling_names(refs)
    loaded = [
        each if isinstance(each, LoadedModel) else load(each, network, name)
        for each, name in zip(models, names, strict=True)
    ]
    return evaluate_networks(loaded, source, evaluation, progress=progress)
