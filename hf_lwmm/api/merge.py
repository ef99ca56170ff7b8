"""Merge models into a folder or a repository: the whole way, as one function call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hf_lwmm.api.arguments import expect
from hf_lwmm.api.destination import destination
from hf_lwmm.api.merged_files import hash_inputs, write_model
from hf_lwmm.api.plan import anchor_index, check_network, fetched, planned, read_models, warnings_of, with_bn_distance
from hf_lwmm.describing.hosting import HostedNetwork, host
from hf_lwmm.engine.network_folder import (
    check_format,
    code_files,
    names_note,
    quantisation_note,
)
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import PlanError, naming_extras
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.atomic import atomic
from hf_lwmm.hub import Pushed, PushOptions, Ref
from hf_lwmm.hub.concurrently import in_background
from hf_lwmm.labels import raw_label_set
from hf_lwmm.planning.heads import kept_heads
from hf_lwmm.planning.images import check_place, naming_options
from hf_lwmm.planning.inputs import MergeInputs
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.local_inputs import local_inputs
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.provenance import check_measurements
from hf_lwmm.progress import Progress, silent
from hf_lwmm.publishing.card import CardExtras, render_card
from hf_lwmm.publishing.licences import check_licence, merged_licence
from hf_lwmm.publishing.model_folders import check_model_folder
from hf_lwmm.publishing.score_files import examples_note, write_scores
from hf_lwmm.publishing.superseded import LAYER_PLOT, SCORE_PLOT
from hf_lwmm.recipes.recipe import Recipe
from hf_lwmm.recipes.recorded import other_inputs, other_output

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport


@dataclass(frozen=True)
class MergeResult:
    """A merge that was carried out: where it is, what it holds, and what its user should know.

    The plan's checkpoints are closed.
    """

    plan: MergePlan = field(repr=False)
    recipe: Recipe = field(repr=False)
    card: str = field(repr=False)
    folder: Path | None
    pushed: Pushed | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    evaluation: EvaluationReport | None = field(default=None, repr=False)

    def held_against(self, recorded: Recipe) -> MergeResult:
        """Return the result of a merge from a recipe, with warnings where it is not the merge that the recipe records.

        Another output is warned of only where nothing was chosen otherwise.
        """
        found = (*other_inputs(recorded, self.recipe), *other_output(recorded, self.recipe))
        return replace(self, warnings=(*found, *self.warnings))

    def _repr_markdown_(self) -> str:
        text, place = self.card.split("\n---\n", 1)[-1], ""
        if self.folder is not None:
            place = quote(self.folder.as_posix())
        elif self.pushed is not None:
            place = f"{self.pushed.url}/resolve/{quote(self.pushed.revision or 'main', safe='')}"
        return text.replace("](plots/", f"]({place}/plots/") if place else text  # a notebook lies elsewhere


@naming_extras("This merge")
def merge(
    models: Sequence[Ref],
    anchor: Ref | None = None,
    *,
    knobs: Knobs = Knobs(),
    inputs: MergeInputs = MergeInputs(),
    output: str | Path | None = None,
    writing: WriteOptions = WriteOptions(),
    push: bool | str | PushOptions = False,
    evaluation: EvaluationSpec = EvaluationSpec(),
    progress: Progress = silent,
) -> MergeResult:
    """Merge models layer by layer into a folder, and push it.

    Args:
        models: two or more references; one is enough for a method that interpolates with the base.
        anchor: the one of them whose task, head and layout the result keeps; the first if None.
        knobs: the choices of the merge.
        inputs: what is read besides the models: base, measurements, and images to tune, re-estimate and score on.
        output: the folder to write; `<anchor>-lwmm` if None and nothing is pushed.
        writing: how the folder is written.
        push: True for `<user>/<anchor>-lwmm`, a repository id, or all options of a push.
        evaluation: how the merge and its parents are scored on `inputs.eval_images`.

    Raises:
        HfLwmmError: a subclass; what was there before still is, and nothing half-written remains.
    """
    expect(knobs, Knobs, "knobs")
    expect(inputs, MergeInputs, "inputs")
    expect(writing, WriteOptions, "writing")
    expect(evaluation, EvaluationSpec, "evaluation")
    _check_images(knobs, inputs)
    _check_evaluation(knobs, inputs, evaluation)
    check_network(inputs, knobs)
    check_licence(writing.license)
    _check_sources(inputs)
    refs = read_models(models, knobs, inputs)
    chosen = anchor_index(refs, anchor)
    goal = destination(output, push, refs[chosen].merge_name)
    read = local_inputs(*refs, inputs, knobs, evaluation)
    target = check_model_folder(goal.path, writing.overwrite, read) if goal.path is not None else None
    message = f"Merge {len(refs)} model{'s' if len(refs) > 1 else ''} with hf-lwmm"
    known = replace(inputs, tuning=None) if inputs.tune_images else inputs
    with planned(refs, anchor, knobs, known, progress) as decided:
        check_format(decided, writing)
        goal.check_apart(checkpoint.source for checkpoint in decided.sources)
        transformers, system = writing.format == "transformers", inputs.network.system
        hosting = in_background(lambda: host(decided, system)) if transformers else None  # while the line is busy
        # Networks on images are loaded from whole files: to fetch parts first would be to fetch them twice.
        looks = any((inputs.tune_images, inputs.bn_images, inputs.eval_images))
        opened = with_bn_distance(fetched(decided, progress, whole=looks, whole_anchor=writing.format == "torch"))
        hashing = hash_inputs(opened)
        measured = check_measurements(opened.measurements, opened.checkpoints)
        doubts = (*measured, *warnings_of(opened))
        _check_numbering(opened, inputs, evaluation)
        found = hosting.result() if hosting is not None else None
        hosted = found if isinstance(found, HostedNetwork) else None
        ready = _tuned(opened, inputs, evaluation, progress)
        licence = merged_licence([checkpoint.source for checkpoint in ready.checkpoints], writing.license)
        with atomic(target) as folder:
            folder.mkdir()
            undrawn: list[str] = []
            written = write_model(ready, hosted, folder, inputs, writing, evaluation, undrawn, progress, hashing)
            ready, recipe = written.plan, written.recipe
            report = _evaluate(ready, folder, goal.title, inputs, evaluation, progress)
            extras = CardExtras(
                report=report,
                pictures=write_scores(report, folder, undrawn) if report else (),
                plot=LAYER_PLOT if (folder / LAYER_PLOT).is_file() else "",
                score_plot=SCORE_PLOT if (folder / SCORE_PLOT).is_file() else "",
                code=code_files(ready),
                hosted=found,
            )
            card = render_card(ready, recipe, licence, goal.title, goal.repo_id, extras)
            (folder / "README.md").write_text(card, encoding="utf-8")
            pushed = goal.push(folder, message, progress) if goal.path is None else None
        if goal.path is not None:  # only now, so that a push that fails does not cost the finished merge
            pushed = goal.push(goal.path, message, progress)
    warnings = (*doubts, *written.doubts, *licence.warnings, *ready.alignment.notes)
    renamed = hosted is not None and hosted.conversion is not None
    named = names_note(ready.anchor) if writing.format != "torch" and not renamed else ()
    described = found.notes if found is not None else ()
    left_out = examples_note(report) if report else ()
    notes = (*_notes(ready, extras), *named, *described, *written.notes, *undrawn, *left_out)
    return MergeResult(ready, recipe, card, goal.path, pushed, warnings, notes, report)


def _check_images(knobs: Knobs, inputs: MergeInputs) -> None:
    method = knobs.method
    if method.tuned and inputs.tune_images is None and inputs.tuning is None:
        labels = "labelled" if "labels" in method.needs else "unlabelled"
        raise PlanError(f"--method {method.name} decides its weights on {labels} images: name them with --tune-data.")
    if not method.tuned and inputs.tune_images is not None:
        raise PlanError(f"--method {method.name} decides nothing on images; leave out --tune-data.")
    if knobs.bn_stats == "recalibrate" and inputs.bn_images is None:
        raise PlanError("--bn-stats recalibrate estimates BatchNorm's statistics on images: name them with --bn-data.")
    if knobs.bn_stats != "recalibrate" and inputs.bn_images is not None:
        raise PlanError(
            f"--bn-stats {knobs.bn_stats} looks at no images; leave out --bn-data, or use --bn-stats recalibrate."
        )
    if knobs.bn_stats != "recalibrate" and knobs.bn_mix is not None:
        raise PlanError("--bn-mix mixes estimated with merged statistics; use it with --bn-stats recalibrate.")


def _check_sources(inputs: MergeInputs) -> None:
    """Refuse images in no place and ids of no scheme."""
    for purpose, images in (("tune", inputs.tune_images), ("bn", inputs.bn_images), ("eval", inputs.eval_images)):
        if images is not None:
            with naming_options(purpose):
                check_place(images.data)
                raw_label_set(images.ids)


def _check_evaluation(knobs: Knobs, inputs: MergeInputs, evaluation: EvaluationSpec) -> None:
    """Refuse options of an evaluation that does not take place."""
    tried = inputs.tune_images is not None and "labels" in knobs.method.needs  # scored to decide the weights
    for name in evaluation.changed() if inputs.eval_images is None else ():
        if not tried or name in ("ensemble", "examples", "groups"):
            raise PlanError(f"{evaluation.flag(name)} needs --eval-data.")


def _tuned(ready: MergePlan, inputs: MergeInputs, evaluation: EvaluationSpec, progress: Progress) -> MergePlan:
    """The plan with all layer weights decided."""
    if not ready.undecided:
        return ready
    with naming_extras(f"--method {ready.method.name}", images=True):
        from hf_lwmm.calibration.tuning import tune

    assert inputs.tune_images is not None
    with naming_options("tune"):
        return tune(ready, inputs.tune_images, network=inputs.network, evaluation=evaluation, progress=progress)


def _evaluate(
    ready: MergePlan, folder: Path, title: str, inputs: MergeInputs, evaluation: EvaluationSpec, progress: Progress
) -> EvaluationReport | None:
    """The scores of the anchor, which the others are compared with, of the other parents and of the merge, the last."""
    if inputs.eval_images is None:
        return None
    with naming_extras("--eval-data", images=True):
        from hf_lwmm.evaluation.merge_scores import score_merge

    return score_merge(ready, folder, title, inputs, evaluation, progress)


def _check_numbering(ready: MergePlan, inputs: MergeInputs, evaluation: EvaluationSpec) -> None:
    """Refuse to score models that number the ids of labels in different ways, before they are merged."""
    images = inputs.eval_images
    if images is None or images.ids or len({checkpoint.reduces_labels for checkpoint in ready.checkpoints}) < 2:
        return
    with naming_extras("--eval-data", images=True):
        from hf_lwmm.evaluation.merge_scores import check_numbering

    check_numbering(ready, images, inputs.network, evaluation)


def _notes(ready: MergePlan, extras: CardExtras) -> tuple[str, ...]:
    """Notes on what was assumed, decided, copied or left out."""
    notes = [ready.advice_line] if ready.advice_line else []
    notes += [note for checkpoint in ready.checkpoints for note in checkpoint.notes]
    notes += (*kept_heads(ready), *quantisation_note(ready.anchor))
    if ready.tuning is not None:
        notes += [f"Layer weights decided on {ready.tuning.images}:"] if ready.tuning.images else []
        notes += ready.tuning.notes
    if extras.code:
        notes.append(f"Copied code of {ready.anchor.label}, unread and never run here: {', '.join(extras.code)}")
    if ready.layer_weights is not None and not extras.plot and not find_spec("matplotlib"):
        notes.append(f"Left out {LAYER_PLOT}, which needs matplotlib: pip install 'hf-lwmm[plots]'")
    return tuple(notes)
