"""From references to a merged model folder or repository: the whole way, as one function call."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_lwmm import hub
from hf_lwmm.api.plan import anchor_index, planned, read_models, with_weights
from hf_lwmm.checkpoints.atomic import check_target, staged
from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.engine.network_folder import write_network
from hf_lwmm.engine.streaming import DEFAULT_SHARD_SIZE
from hf_lwmm.errors import HubError, PlanError
from hf_lwmm.hub import Pushed
from hf_lwmm.hub.refs import ModelRef, Ref, parse_ref
from hf_lwmm.planning.discrepancy import pretraining_warnings
from hf_lwmm.planning.plan import Knobs, MergePlan
from hf_lwmm.planning.provenance import ImageProvenance, Tuning, measured_model
from hf_lwmm.planning.recipe import FILE_NAME, Recipe, read_recipe, recipe_of
from hf_lwmm.progress import Progress
from hf_lwmm.publishing.card import render_card
from hf_lwmm.publishing.eval_results import eval_results_file
from hf_lwmm.publishing.licences import merged_licence
from hf_lwmm.publishing.plots import plot_layer_weights

if TYPE_CHECKING:
    from hf_lwmm.evaluation.evaluate import EvaluationReport


@dataclass(frozen=True)
class MergeResult:
    """A merge that was carried out: where it is, what is in it, and what its user should know."""

    plan: MergePlan = field(repr=False)
    recipe: Recipe = field(repr=False)
    card: str = field(repr=False)
    folder: Path | None
    pushed: Pushed | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    evaluation: EvaluationReport | None = field(default=None, repr=False)

    def _repr_markdown_(self) -> str:
        return self.card.split("\n---\n", 1)[-1]


@dataclass(frozen=True)
class Reproduction:
    """Whether merging again gave the recorded bytes. The mappings are from file name to SHA-256."""

    repo: str
    same: bool
    recorded: Mapping[str, str]
    stored: Mapping[str, str]
    merged: Mapping[str, str]


def _silent(what: str, done: int, total: int) -> None: ...


def plan(
    models: Sequence[Ref],
    *,
    anchor: Ref | None = None,
    base: Ref | None = None,
    statistics: Sequence[Ref] = (),
    tuning: Tuning | None = None,
    **knobs: Any,
) -> MergePlan:
    """Decide a merge without carrying it out; of Hub repositories with safetensors only headers are read.

    Weights that a method decides on images are left open, unless `tuning` has them.

    Args:
        models: two or more references (`org/name[@revision][:file]`, local file or folder).
        anchor: which of them gives task, head and layout; the first if None.
        base: the pre-training that all models share, for methods that need it.
        statistics: a file for each model, for methods that need measurements.
        tuning: weights that were decided before, such as a recipe's.
        knobs: as in `Knobs`.

    Raises:
        HfLwmmError: a subclass that says what is wrong with which model.
    """
    with planned(models, anchor, Knobs(**knobs), base, statistics, tuning) as decided:
        return decided


def merge(
    models: Sequence[Ref],
    *,
    anchor: Ref | None = None,
    base: Ref | None = None,
    statistics: Sequence[Ref] = (),
    output: str | Path | None = None,
    push: str | bool = False,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
    evaluate: str | Path | None = None,
    evaluation: Mapping[str, Any] | None = None,
    tune_data: str | Path | None = None,
    tune_options: Mapping[str, Any] | None = None,
    tuning: Tuning | None = None,
    bn_data: str | Path | None = None,
    bn_options: Mapping[str, Any] | None = None,
    progress: Progress = _silent,
    **knobs: Any,
) -> MergeResult:
    """Merge models layer by layer into a folder, and push it.

    Args:
        models: two or more references; `anchor` is one of them (the first if None).
        base, statistics: as in `plan`.
        output: the folder to write; `<anchor>-lwmm` if None and nothing is pushed.
        push: True for `<user>/<anchor>-lwmm`, or a repository id.
        private, create_pr, revision, commit_message: as in `huggingface_hub.HfApi.create_commit`.
        license: the licence to state instead of the one that follows from the parents'.
        overwrite: replace an existing `output`, once the new one is complete.
        allow_nonfinite: merge although a value is infinite or not a number.
        max_shard_size: bytes above which the weights are split over several files.
        evaluate: a data set to score the merge and its parents on; the card shows the scores.
        evaluation: options of `hf_lwmm.evaluate`, such as `split` and `protocol`.
        tune_data: the images that greedy-soup (with labels) and adaptive (without) decide their weights on.
        tune_options: as `options` of `hf_lwmm.calibration.tuning.tune`.
        tuning: such weights, if they were decided before; no images are then needed.
        bn_data: the images, without labels, on which `bn="recalibrate"` estimates BatchNorm's statistics.
        bn_options: as `options` of `hf_lwmm.calibration.batchnorm.recalibrate`.
        knobs: as in `Knobs`.

    Raises:
        HfLwmmError: a subclass; whatever was there before still is, and nothing half-written remains.
    """
    settings = Knobs(**knobs)
    _check_images(settings, tune_data, tuning, bn_data)
    refs = read_models(models)
    chosen = anchor_index(refs, anchor)
    repo_id = hub.target_repo(push, f"{refs[chosen].name}-lwmm") if push else None
    if repo_id:
        hub.check_push(repo_id, create_pr=create_pr)
    target = None if output is None and repo_id else Path(output or f"{refs[chosen].name}-lwmm")
    if target is not None:
        check_target(target, overwrite)

    def send(folder: Path) -> Pushed:
        progress("Pushing", 0, 1)
        message = commit_message or f"Merge {len(refs)} models with hf-lwmm"
        flags: Any = {"private": private, "create_pr": create_pr, "revision": revision}
        return hub.push_folder(folder, _files(folder), str(repo_id), message=message, **flags)

    with (
        planned(refs, chosen, settings, base, statistics, None if tune_data else tuning, progress) as decided,
        with_weights(decided, progress) as opened,
    ):
        doubts = (*_check_measured(opened), *pretraining_warnings(opened))
        ready = _tuned(opened, tune_data, tune_options, progress)
        licence = merged_licence([checkpoint.source for checkpoint in ready.checkpoints], license)
        with staged(target) as folder:
            title = repo_id or (target.name if target else "")
            options = {"allow_nonfinite": allow_nonfinite, "max_shard_size": max_shard_size}
            recipe = _write_model(ready, folder, options, (bn_data, bn_options), progress)
            report = _evaluate(ready, folder, title, evaluate, evaluation or {}, progress) if evaluate else None
            pictures = _write_scores(report, folder) if report else []
            card = render_card(ready, recipe, licence, title, repo_id, report, pictures)
            (folder / "README.md").write_text(card, encoding="utf-8")
            pushed = send(folder) if repo_id and target is None else None
        if repo_id and target is not None:
            pushed = send(target)  # only now, so that a push that fails does not cost the finished merge
    notes = (*(note for checkpoint in ready.checkpoints for note in checkpoint.notes), *_decided(ready))
    warnings = (*_duplicates(ready.checkpoints), *doubts, *licence.warnings, *ready.alignment.notes)
    return MergeResult(ready, recipe, card, target, pushed, warnings, notes, report)


def push(folder: str | Path, repo_id: str, **options: Any) -> Pushed:
    """Push a folder that `merge` wrote, as one commit.

    Options are `private`, `create_pr`, `revision` and `message`.

    Raises:
        HubError: if the folder is no merged model, or this user may not write there.
    """
    folder = Path(folder)
    if not (folder / FILE_NAME).is_file():
        raise HubError(f"{folder}: has no {FILE_NAME}, so it is not a merged model. Push only what `merge` wrote.")
    hub.check_push(repo_id, create_pr=options.get("create_pr", False))
    return hub.push_folder(
        folder, _files(folder), repo_id, **{"message": "Upload a model merged with hf-lwmm", **options}
    )


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def reproduce(repo: Ref, *, progress: Progress = _silent) -> Reproduction:
    """Merge again what a merged repository records, at the same commits, and compare the bytes.

    Weights that were decided on images are the recorded ones. BatchNorm's statistics that were estimated on images are
    estimated again, with floating-point sums that may end in other bits on another machine.

    Raises:
        PlanError: if it has no recipe, or a parent was a local file.
        HubError: if a parent is gone.
    """
    source = hub.resolve(parse_ref(repo))
    if FILE_NAME not in source.files:
        raise PlanError(f"{source.label}: has no {FILE_NAME}, so it was not made by hf-lwmm.")
    recipe = read_recipe(hub.fetch(source, FILE_NAME).read_text(encoding="utf-8"), f"{source.label}:{FILE_NAME}")
    if recipe.local:
        raise PlanError(f"{source.label}: cannot be made again from here: {', '.join(recipe.local)} was a local file.")
    recalibration = recipe.recalibration
    if recalibration is not None and recalibration.local:
        raise PlanError(
            f"{source.label}: cannot be made again from here: BatchNorm's statistics were estimated on the images of "
            f"{recalibration.name}, which was a local folder."
        )
    stored = _hashes({name: hub.fetch(source, name) for name in recipe.output if name in source.files})
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:
        again = merge(
            recipe.models,
            anchor=recipe.anchor,
            base=recipe.base,
            statistics=recipe.statistics,
            tuning=recipe.tuning,
            output=Path(folder) / "again",
            max_shard_size=recipe.max_shard_size,
            progress=progress,
            allow_nonfinite=True,
            **recipe.bn_images,
            **vars(recipe.knobs),
        )
    merged = dict(again.recipe.output)
    return Reproduction(source.label, merged == dict(recipe.output) == stored, recipe.output, stored, merged)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file. Raises PlanError if it cannot be read."""
    try:
        return read_recipe(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read: {error}") from None


def _check_images(
    knobs: Knobs, tune_data: str | Path | None, tuning: Tuning | None, bn_data: str | Path | None
) -> None:
    method = knobs.merge_method()
    if method.tuned and not tune_data and tuning is None:
        labels = "labelled" if "labels" in method.needs else "unlabelled"
        raise PlanError(f"--method {method.name} decides its weights on {labels} images: name them with --tune-data.")
    if not method.tuned and tune_data:
        raise PlanError(f"--method {method.name} decides nothing on images; leave out --tune-data.")
    if knobs.bn == "recalibrate" and not bn_data:
        raise PlanError("--bn recalibrate estimates BatchNorm's statistics on images: name them with --bn-data.")
    if knobs.bn != "recalibrate" and bn_data:
        raise PlanError(f"--bn {knobs.bn} looks at no images; leave out --bn-data, or use --bn recalibrate.")


def _tuned(
    ready: MergePlan, data: str | Path | None, options: Mapping[str, Any] | None, progress: Progress
) -> MergePlan:
    """The plan with all weights decided."""
    if not ready.undecided:
        return ready
    from hf_lwmm.calibration.tuning import tune

    assert data is not None
    return tune(ready, data, options, progress)


def _decided(ready: MergePlan) -> tuple[str, ...]:
    """How the weights were decided, in words."""
    if ready.tuning is None:
        return ()
    return (*([f"Weights decided on {ready.tuning.images}:"] if ready.tuning.images else []), *ready.tuning.notes)


def _check_measured(ready: MergePlan) -> tuple[str, ...]:
    """Refuse statistics that were measured of another model; warnings about those that do not say of which.

    Raises:
        PlanError: naming both models.
    """
    warnings = []
    for found, model in zip(ready.statistics, ready.checkpoints, strict=False):
        record = measured_model(*found.paths.values()) if len(found.paths) == 1 else None
        if record is None:
            warnings.append(f"{found.label} does not say which model it was measured of; only its shapes were checked.")
        elif sorted(record.sha256.values()) != sorted(_hashes(model.paths).values()):
            raise PlanError(
                f"{found.label} was measured of {record.model}, not of {model.label}. Give one file for each model, in "
                "the models' order, or measure this one (`hf-lwmm measure`)."
            )
    return tuple(warnings)


def _duplicates(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    seen: dict[object, str] = {}
    warnings = []
    for checkpoint in checkpoints:
        source = checkpoint.source
        key = (source.ref.repo_id, source.sha, source.ref.path and source.ref.path.resolve(), checkpoint.files)
        if key in seen:
            warnings.append(f"{checkpoint.label} is merged with itself: the same model is named twice.")
        seen[key] = checkpoint.label
    return tuple(warnings)


def _hashes(paths: Mapping[str, Path]) -> dict[str, str]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(paths, pool.map(hub.sha256, paths.values()), strict=True))


def _input_hashes(ready: MergePlan) -> tuple[Mapping[str, str], ...]:
    every = {(i, name): path for i, c in enumerate(ready.sources) for name, path in c.paths.items()}
    with ThreadPoolExecutor(2) as pool:
        digests = dict(zip(every, pool.map(hub.sha256, every.values()), strict=True))
    return tuple({name: digests[i, name] for name in c.paths} for i, c in enumerate(ready.sources))


def _evaluate(
    ready: MergePlan, folder: Path, title: str, dataset: str | Path, options: Mapping[str, Any], progress: Progress
) -> EvaluationReport:
    """Scores of the anchor, which the others are compared with, the other parents, and the merge."""
    from hf_lwmm.evaluation.evaluate import evaluate
    from hf_lwmm.networks.loading import load

    chosen = ready.alignment.anchor
    order = [chosen, *(index for index in range(len(ready.checkpoints)) if index != chosen)]
    names = ("labels", "system", "device", "dtype")
    loading = {"labels": ready.knobs.labels, **{name: options[name] for name in names if name in options}}
    parents = [load(_exact(ready.checkpoints[i]), branch=ready.knobs.branch, **loading) for i in order]
    if ready.anchor.classes:
        loading["labels"] = [ready.anchor.classes]
    merged = replace(load(folder, **loading), name=title)
    rest = {name: value for name, value in options.items() if name not in names}
    report = evaluate([*parents, merged], dataset, progress=progress, **rest)
    assert report is not None, "merge --evaluate runs in one process"
    return report


def _write_scores(report: EvaluationReport, folder: Path) -> list[str]:
    """Write the scores for programs and for the Hub, and the pictures, whose names are returned."""
    from hf_lwmm.evaluation.examples import save_examples

    (folder / "evaluation.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    if (found := eval_results_file(report)) is not None:
        name, text = found
        (folder / name).parent.mkdir()
        (folder / name).write_text(text, encoding="utf-8")
    return [path.relative_to(folder).as_posix() for path in save_examples(report, folder / "plots")]


def _exact(checkpoint: Checkpoint) -> ModelRef:
    """The reference with its commit, so that no later one is scored."""
    source = checkpoint.source
    return source.ref.at(source.sha) if source.sha else source.ref


def _write_model(
    ready: MergePlan,
    folder: Path,
    options: Mapping[str, Any],
    images: tuple[str | Path | None, Mapping[str, Any] | None],
    progress: Progress,
) -> Recipe:
    """Write the merged weights and everything beside them that makes a model repository, but the card.

    `images` are data and options for BatchNorm's statistics, if these are to be estimated.
    """
    total = sum(tensor.info.nbytes for tensor in ready.tensors)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("Merging", done, total)

    with ThreadPoolExecutor(1) as pool:
        # Hashing runs beside the merge and the drawing, which leave a core to spare now and then.
        inputs = pool.submit(_input_hashes, ready)
        weights = write_network(ready, folder, progress=advance, **options)
        recalibration = _recalibrated(ready, folder, *images, progress)
        outputs = pool.submit(_hashes, {name: folder / name for name in weights})
        if ready.layer_weights is not None:
            (folder / "plots").mkdir()
            plot_layer_weights(ready, folder / "plots" / "layer_weights.png")
        recipe = recipe_of(ready, inputs.result(), outputs.result(), options["max_shard_size"], recalibration)
    (folder / FILE_NAME).write_text(recipe.to_yaml(), encoding="utf-8")
    return recipe


def _recalibrated(
    ready: MergePlan, folder: Path, data: str | Path | None, options: Mapping[str, Any] | None, progress: Progress
) -> ImageProvenance | None:
    """Estimate BatchNorm's statistics in the written files, if they are to be; gives on which images."""
    if ready.knobs.bn != "recalibrate":
        return None
    from hf_lwmm.calibration.batchnorm import recalibrate

    assert data is not None
    return recalibrate(ready, folder, data, options, progress)
