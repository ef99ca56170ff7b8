"""Merge and score many combinations of models, anchors, methods and knobs, and rank them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect, expect_list
from hf_lwmm.errors import PlanError, naming_extras
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.targets import check_target
from hf_lwmm.hub import ModelRef, Ref, parse_ref
from hf_lwmm.planning.images import ImageSource, as_images
from hf_lwmm.planning.inputs import MergeInputs, NetworkOptions
from hf_lwmm.planning.local_inputs import local_inputs
from hf_lwmm.progress import Progress, silent
from hf_lwmm.sweeping.grid import SweepAxes
from hf_lwmm.sweeping.run_options import SweepRun

if TYPE_CHECKING:
    from hf_lwmm.sweeping.ranking import SweepReport


@naming_extras("A sweep", images=True)
def sweep(
    models: Sequence[Ref],
    images: ImageSource | str | Path,
    output: str | Path = "sweep.parquet",
    *,
    axes: SweepAxes = SweepAxes(),
    inputs: MergeInputs = MergeInputs(),
    evaluation: EvaluationSpec = EvaluationSpec(),
    network: NetworkOptions = NetworkOptions(),
    run: SweepRun = SweepRun(),
    progress: Progress = silent,
) -> SweepReport:
    """Merge and score every combination, and every model by itself, and rank them.

    What is in `output` already is not scored again, so a killed sweep goes on, and a further one of the same models and
    data adds to the table.

    Args:
        models: two or more references, as for `merge`.
        images: the labelled images to score on; of the split validation if the source names none.
        output: the Parquet file for the results, in the working directory unless it names another folder. It is kept,
            and read by the next sweep: another data set needs another file. Its columns are in the docstring of
            `hf_lwmm.sweeping`.
        axes: what is varied, and the knobs that all merges share.
        inputs: `base` and `measurements`, which only the methods that need them are given, and `target`.
        evaluation: how candidates are scored. Its `ensemble` means that of `axes`, and no examples are drawn.
        network: how networks are run. Its labels and branch are those of `axes.fixed` if it has none.
        run: a search in place of the grid, and who scores candidates.

    Raises:
        PlanError: if a choice has no meaning, or no merge can be carried out.
        MergeError: if `output` is a model or an image, or in a folder of them, or cannot be written.
        SweepError: if `output` holds results of other models or data, or another sweep writes it.
        ExtraError: if an extra is not installed.
        HfLwmmError: if a model or the data cannot be read.
    """
    expect_list(models, "models")
    expect(axes, SweepAxes, "axes")
    expect(inputs, MergeInputs, "inputs")
    expect(evaluation, EvaluationSpec, "evaluation")
    expect(network, NetworkOptions, "network")
    expect(run, SweepRun, "run")
    if len(models) < 2:
        raise PlanError("A sweep needs at least two models. Name them all: hf-lwmm sweep org/a org/b --data org/d")
    _check_inputs(inputs, len(models))
    read = local_inputs(*models, inputs, as_images(images), evaluation, network, axes.fixed)
    check_target(Path(output), overwrite=True, inputs=read)  # what it holds is added to, or refused
    if callable(network.network):
        raise PlanError("A sweep names a network of your own, for its other processes: network='module:function'.")
    from hf_lwmm.sweeping.scorer import SweepSetup
    from hf_lwmm.sweeping.sweep import run_sweep

    labels, branch = network.labels or axes.fixed.labels, network.branch
    if branch == NetworkOptions().branch:
        branch = axes.fixed.branch
    fixed = replace(axes.fixed, labels=labels, branch=branch)
    setup = SweepSetup(
        models=tuple(_exact(model) for model in models),
        base=_exact(inputs.base) if inputs.base else None,
        measurements=tuple(_exact(each) for each in inputs.measurements),
        images=as_images(images),
        network=replace(network, labels=fixed.labels, branch=branch),
        evaluation=_shared(evaluation, run.jobs),
        target=inputs.target,
        cache_bytes=run.cache_bytes,
    )
    varied = replace(axes, fixed=fixed, ensemble=axes.ensemble or evaluation.ensemble)
    return run_sweep(setup, Path(output), varied, run, progress)


def _check_inputs(inputs: MergeInputs, models: int) -> None:
    if inputs.measurements and len(inputs.measurements) != models:
        raise PlanError(
            f"--measurements takes one file for each of the {models} models, not {len(inputs.measurements)}."
        )
    for name in ("tune_images", "bn_images", "eval_images", "tuning", "order"):
        if getattr(inputs, name) is not None:
            raise PlanError(
                f"A sweep makes no use of {name}: it takes base, measurements and target, and its own images."
            )
    if inputs.network != NetworkOptions():
        raise PlanError("A sweep makes no use of the network options in its inputs: it has its own (network=...).")


def _shared(evaluation: EvaluationSpec, jobs: int | None) -> EvaluationSpec:
    """The evaluation in one of several processes, which reads images with its part of the threads."""
    return replace(evaluation, workers=max(1, evaluation.threads // (jobs or 1)))


def _exact(ref: Ref) -> ModelRef:
    """The reference at its commit, so that every process and every continuation reads the same."""
    return hub.resolve(parse_ref(ref)).exact
