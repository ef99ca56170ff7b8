"""Every combination of models, anchors, methods and knobs, merged, scored on one data set, and ranked.

The Parquet file of a sweep has a row for each candidate, the best first:

| column | type | what it is |
| --- | --- | --- |
| rank | int | 1 for the best |
| candidate | string | its name, the only one of its kind in the file |
| kind | string | `model`, `merge` or `ensemble` |
| models | list of string | what it is made of |
| anchor | string | null for an ensemble |
| method | string | null but for merges, as `bn` and `options` |
| start, alpha, ramp | float, float, string | of layerwise merges, null for others; alpha is 1/M where none was given |
| bn | string | what becomes of BatchNorm's statistics |
| options | map of string to float | those of the method that were given |
| trial | int | number of a search's trial, else null |
| metric | string | `mIoU`, `mean PQ`, `average accuracy` or `mean AP` |
| score, low, high | float | its value, a fraction, with the 95 % interval over images |
| difference, difference_low, difference_high | float | to the best single model, paired; null for itself |
| behind, behind_low, behind_high | float | to the best candidate, paired, at most 0; null for itself |
| by_class | list of float | a value for each of `classes`, nan where a class does not occur |
| definition | string | the candidate as JSON: places of its models, knobs that differ from the paper's choice |
| task, classes, notes | string, list of string, list of string | of the evaluation |
| seconds | float | of merging and scoring |
| counts, counts_shape | list of float, list of int | the metric's counts: (images, rows, K) |

The file's metadata `hf_lwmm.sweep` is JSON: `study`, what the results are of, and `skipped` with reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from hf_lwmm import hub
from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.errors import HfLwmmError, PlanError
from hf_lwmm.evaluation.evaluate import evaluate
from hf_lwmm.evaluation.report import METRICS
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.progress import Progress
from hf_lwmm.sweeping.executor import SweepError, Workers, workers
from hf_lwmm.sweeping.grid import Axes, Candidate, Skipped, ensembles, merge_knobs, merges, singles
from hf_lwmm.sweeping.ranking import SweepReport, SweepRow, columns, rank
from hf_lwmm.sweeping.scorer import CandidateScorer, Data, SweepSetup, check_same
from hf_lwmm.sweeping.search import search as run_search
from hf_lwmm.sweeping.store import Store

__all__ = ["SweepError", "SweepReport", "SweepRow", "sweep"]

Ref = str | Path | ModelRef
_BESIDE = ("config.json", "preprocessor_config.json")
_LOADING = ("labels", "system", "device", "dtype")


def sweep(
    models: Sequence[Ref],
    dataset: str | Path,
    output: str | Path = "sweep.parquet",
    *,
    subsets: str = "all",
    anchors: str = "all",
    methods: Sequence[str] = ("layerwise",),
    start: Sequence[float] = (0.0,),
    alpha: Sequence[float | None] = (None,),
    ramp: Sequence[str] = ("linear",),
    bn: Sequence[str] = ("linear",),
    options: Mapping[str, Sequence[float]] | None = None,
    knobs: Mapping[str, Any] | None = None,
    base: Ref | None = None,
    statistics: Sequence[Ref] = (),
    ensemble: bool = False,
    search: int = 0,
    seed: int = 0,
    branch: str = "student",
    jobs: int | None = None,
    ray: str | None = None,
    progress: Progress = lambda what, done, total: None,
    **evaluation: Any,
) -> SweepReport:
    """Merge and score every combination, and every model by itself, and rank them.

    What is in `output` already is not scored again, so a killed sweep goes on, and a further one of the same models and
    data adds to the table.

    Args:
        models: two or more references, as for `merge`.
        dataset: the data set to score on, as for `evaluate`.
        output: the Parquet file for the results; its columns are in this package's own text.
        subsets: which models are merged: `all` subsets of two or more, `pairs`, or the `whole` set.
        anchors: `all` of a subset in turn, or its `first`.
        methods: names of merge methods.
        start, alpha, ramp: of layerwise merges.
        bn: what becomes of BatchNorm's statistics.
        options: values of options, each of which is for the methods that have it.
        knobs: further knobs, the same for every merge: granularity, order, share, head, keep, permute.
        base, statistics: as for `merge`; only the methods that need them are given them.
        ensemble: also score the output ensemble of every subset.
        search: in place of a grid, so many trials of start, alpha and ramp for all models, the first as anchor.
        seed: of the search.
        branch: of self-training checkpoints, `student` or `teacher`.
        jobs: local processes, or actors with `ray`.
        ray: the address of a Ray cluster to score candidates on; `local` for one on this machine.
        evaluation: options of `evaluate`, such as `split`, `protocol`, `limit`, `flip`, `labels` and `device`.

    Raises:
        PlanError: if a choice has no meaning, or no merge can be.
        SweepError: if `output` holds results of other models or data, another sweep writes it, or an extra is not
            installed.
        HfLwmmError: if a model or the data cannot be read.
    """
    if len(models) < 2:
        raise PlanError("A sweep needs at least two models. Name them all: hf-lwmm sweep org/a org/b --dataset org/d")
    if statistics and len(statistics) != len(models):
        raise PlanError(f"--measurements takes one file for each of the {len(models)} models, not {len(statistics)}.")
    axes = Axes(subsets, anchors, methods, start, alpha, ramp, bn, dict(options or {}), dict(knobs or {}))
    if search and axes != Axes(axes.subsets, axes.anchors, bn=axes.bn[:1], fixed=axes.fixed):
        raise PlanError("--search tries start, alpha and ramp of layerwise itself; leave out what a grid varies.")
    loading = {name: evaluation[name] for name in _LOADING if name in evaluation} | {"branch": branch}
    rest = {name: value for name, value in evaluation.items() if name not in _LOADING}
    setup = SweepSetup(
        tuple(_exact(model) for model in models),
        _exact(base) if base else None,
        tuple(_exact(each) for each in statistics),
        str(dataset),
        loading,
        rest,
    )
    with CandidateScorer(setup) as bench:
        fixed = {"bn": axes.bn[0], **axes.fixed}
        if search:  # where these models do not merge, no trial can help
            bench.plan(Candidate("merge", tuple(range(len(models))), 0, merge_knobs(Layerwise.name, {}, fixed)))
        data = bench.data()
        wanted = singles(len(models)) + (ensembles(len(models), subsets) if ensemble else [])
        with Store(Path(output), _study(bench, data)) as store, workers(bench, jobs, ray) as crew:
            run = _Run(bench, crew, store, data, progress)
            if search:
                run.score(wanted, extra=search)
                run_search(run.trials, len(models), search, seed=seed, fixed=fixed, at_once=jobs or 1)
            else:
                run.score(wanted + merges(len(models), axes))
            scored, labels = list(store.rows.values()), _labels(bench.models)
            found = rank(scored, run.skipped, data, rest.get("protocol"), labels, store.path)
            store.finish(columns(found), [row.candidate.key for row in found.rows], run.skipped)
    return found


class _Run:
    """Candidates on their way into the store."""

    def __init__(self, bench: CandidateScorer, crew: Workers, store: Store, data: Data, progress: Progress) -> None:
        self.skipped: list[Skipped] = []
        self._bench, self._crew, self._store, self._data, self._progress = bench, crew, store, data, progress
        self._done = self._total = 0

    def score(self, candidates: Sequence[Candidate], extra: int = 0) -> None:
        """Score what can be and is not in the store yet; `extra` are to come later."""
        possible = [candidate for candidate in candidates if self._possible(candidate)]
        if not extra and not any(candidate.kind == "merge" for candidate in possible):
            reason = next(each.reason for each in self.skipped if each.candidate.kind == "merge")
            raise PlanError(f"None of these merges can be: {reason}")
        left = [candidate for candidate in possible if candidate.key not in self._store.rows]
        self._done, self._total = len(possible) - len(left), len(possible) + extra
        self._keep(left)

    def trials(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """Scores of a search's trials."""
        possible = [candidate for candidate in candidates if self._possible(candidate)]
        left = {each.key: each for each in possible if each.key not in self._store.rows}
        self._done += len(candidates) - len(left)
        self._keep(list(left.values()))
        rows = [self._store.rows.get(candidate.key) for candidate in candidates]
        return [None if row is None else METRICS[row.task].mean(row.counts, self._data.chosen) for row in rows]

    def _keep(self, left: Sequence[Candidate]) -> None:
        self._progress("Scoring", self._done, self._total)
        for found in self._crew.score(left) if left else ():
            if isinstance(found, Skipped):
                self.skipped.append(found)
            else:
                first = next(iter(self._store.rows.values()), found)
                check_same(found, first.task, self._data)
                self._store.keep(found)
            self._done += 1
            self._progress("Scoring", self._done, self._total)

    def _possible(self, candidate: Candidate) -> bool:
        try:
            if candidate.kind == "merge":
                self._bench.plan(candidate)
            elif candidate.kind == "ensemble" and self._bench.network(0).task in ("panoptic", "detection"):
                raise PlanError("an output ensemble averages class probabilities, which this task does not have")
        except HfLwmmError as error:
            self.skipped.append(Skipped(candidate, str(error)))
            return False
        return True


def _exact(ref: Ref) -> ModelRef:
    """The reference at its commit, so that every process and every continuation reads the same."""
    source = hub.resolve(parse_ref(ref))
    return source.ref.at(source.sha) if source.sha else source.ref


def _labels(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The models' labels, numbered where they would be the same."""
    labels = [checkpoint.label for checkpoint in checkpoints]
    return [f"{label} ({place + 1})" if labels.count(label) > 1 else label for place, label in enumerate(labels)]


def _study(bench: CandidateScorer, data: Data) -> dict[str, Any]:
    """What the results are of; they are never mixed with those of anything else."""
    setup, base, statistics = bench.setup, bench.base, bench.statistics
    return {
        "version": __version__,
        "models": [_identity(checkpoint) for checkpoint in bench.models],
        "base": _identity(base) if base else None,
        "statistics": [_identity(checkpoint) for checkpoint in statistics] or None,
        "data set": [data.name, data.images, data.identity, list(data.space), list(data.chosen)],
        "way of loading": _unusual(setup.loading),
        "way of scoring": _unusual(setup.evaluation),
    }


def _identity(checkpoint: Checkpoint) -> str:
    """A model by what is in it: its commit, or the hashes of the files that say what it computes."""
    source = checkpoint.source
    if source.sha:
        return f"{source.ref}"
    paths = dict(checkpoint.paths)
    if source.ref.path is not None and source.ref.path.is_dir():
        paths |= {name: hub.fetch(source, name) for name in _BESIDE if name in source.files}
    return " ".join(f"{name}:{hub.sha256(path)}" for name, path in sorted(paths.items()))


def _unusual(options: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, so that to say these changes nothing; no result depends on the device."""
    defaults = {"branch": "student", **{name: each.default for name, each in signature(evaluate).parameters.items()}}
    given = {name: _plain(value) for name, value in options.items() if name != "device"}
    return {name: value for name, value in given.items() if value != _plain(defaults.get(name))}


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
