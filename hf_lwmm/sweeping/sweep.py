"""Carry a sweep out: score what is not in its file yet, rank everything, and write the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hf_lwmm.errors import HfLwmmError, PlanError, keeping
from hf_lwmm.evaluation.evaluate import SCORES_KEPT
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.methods import METHODS
from hf_lwmm.planning.bn_distance import bn_warnings
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.provenance import check_measurements
from hf_lwmm.progress import Progress, silent
from hf_lwmm.sweeping.confirmation import confirm, confirming_images
from hf_lwmm.sweeping.executor import Workers, workers
from hf_lwmm.sweeping.grid import Candidate, Skipped, SweepAxes, ensembles, merges, singles
from hf_lwmm.sweeping.ranking import SweepReport, rank
from hf_lwmm.sweeping.run_options import SweepRun
from hf_lwmm.sweeping.scorer import CandidateScorer, SweepData, SweepSetup, check_same
from hf_lwmm.sweeping.search import Search
from hf_lwmm.sweeping.store import Store, columns
from hf_lwmm.sweeping.study import study_of


def run_sweep(
    setup: SweepSetup,
    output: Path,
    axes: SweepAxes = SweepAxes(),
    run: SweepRun = SweepRun(),
    progress: Progress = silent,
) -> SweepReport:
    """Merge and score every combination of the axes, and every model by itself, and rank them.

    What is in `output` already is not scored again, so a killed sweep goes on, and a further one of the same models and
    data adds to the table.

    Args:
        setup: the models and the data, with references at fixed commits.
        output: the Parquet file; its columns are in the docstring of `hf_lwmm.sweeping`.
        axes: what is varied, and the knobs that all merges share.
        run: a search in place of the grid, a split to confirm the best model or merge on, and who scores candidates.

    Raises:
        PlanError: if a search is asked for beside a grid, no merge can be carried out, or the split to confirm on holds
            the images that choose.
        SweepError: if `output` holds other results, or another sweep writes it, or workers are lost.
        HfLwmmError: if a model or the data cannot be read.
    """
    if run.search and axes.varies_knobs:
        raise PlanError("--search tries start, alpha and ramp of layerwise itself; leave out what a grid varies.")
    _check_images(axes)
    count = len(setup.models)
    fixed = replace(axes.fixed, method=Knobs().method, bn_stats=axes.bn_stats[0])
    search = Search(count, fixed, run) if run.search else None
    with CandidateScorer(setup) as scorer:
        if search is not None:  # where these models do not merge, no trial can help
            scorer.plan(Candidate("merge", tuple(range(count)), 0, fixed))
        advice = scorer.advice()
        doubts = (*check_measurements(scorer.measurements, scorer.models), *bn_warnings(advice, axes.bn_stats))
        data = scorer.data()
        data = replace(data, notes=(*doubts, *data.notes))
        confirming = _confirming(scorer, run.confirm)
        wanted = singles(count) + (ensembles(count, axes.subsets) if axes.ensemble else [])
        with (
            keeping(SCORES_KEPT),
            Store(output, study_of(scorer, data)) as store,
            workers(scorer, run) as crew,
        ):
            scoring = _Scoring(scorer, crew, store, data, progress)
            if search is not None:
                scoring.score(wanted, extra=run.search)
                search.run(scoring.trials)
            else:
                scoring.score(wanted + merges(count, axes.with_advised(advice.method)))
            scored = list(store.rows.values())
            found = replace(rank(scored, scoring.skipped, data, scorer.labels, store.path), advice=advice)
            store.finish(columns(found.records()), [row.candidate.key for row in found.rows], scoring.skipped)
        if confirming is not None and run.confirm is not None:
            progress("Confirming", 0, 1)
            confirmation = confirm(scorer, *confirming, run.confirm, found.best_model.candidate)
            found = replace(found, confirmation=confirmation)
    return found


def _check_images(axes: SweepAxes) -> None:
    """Refuse what decides something on images of its own, which a sweep has none for; now, and not after hours."""
    tuned = [(f"--method {name}", "--tune-data") for name in axes.methods if name in METHODS and METHODS[name]().tuned]
    recalibrated = [("--bn-stats recalibrate", "--bn-data")] if "recalibrate" in axes.bn_stats else []
    for what, images in (*tuned, *recalibrated):
        raise PlanError(
            f"{what} needs images of its own, which a sweep has none for. Leave it out here; merge with {what} "
            f"{images} DATA, and score the result beside the others with evaluate."
        )


def _confirming(scorer: CandidateScorer, split: str | None) -> tuple[SweepData, ImageSource] | None:
    """The images that confirm the winner, None if no split is named; looked at before anything is scored."""
    if split is None:
        return None
    images = confirming_images(scorer.setup.images, split, scorer.network(0).task)
    return scorer.data(images), images


class _Scoring:
    """Candidates on their way into the store."""

    def __init__(
        self, scorer: CandidateScorer, crew: Workers, store: Store, data: SweepData, progress: Progress
    ) -> None:
        self.skipped: list[Skipped] = []
        self._scorer, self._crew, self._store, self._data, self._progress = scorer, crew, store, data, progress
        self._done = self._total = 0

    def score(self, candidates: Sequence[Candidate], extra: int = 0) -> None:
        """Score what is possible and not in the store yet; `extra` candidates are to come later.

        Raises:
            PlanError: if no merge is possible, and none is to come.
        """
        possible = [candidate for candidate in candidates if self._possible(candidate)]
        if not extra and not any(candidate.kind == "merge" for candidate in possible):
            reason = next(each.reason for each in self.skipped if each.candidate.kind == "merge")
            raise PlanError(f"None of these merges can be carried out: {reason}")
        left = [candidate for candidate in possible if candidate.key not in self._store.rows]
        self._done, self._total = len(possible) - len(left), len(possible) + extra
        self._keep(left)

    def trials(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return the scores of a search's trials, None for one that is not possible."""
        possible = [candidate for candidate in candidates if self._possible(candidate)]
        left = {each.key: each for each in possible if each.key not in self._store.rows}
        self._done += len(candidates) - len(left)
        self._keep(list(left.values()))
        rows = [self._store.rows.get(candidate.key) for candidate in candidates]
        return [None if row is None else METRICS[row.task].mean(row.counts, self._data.classes.rows) for row in rows]

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
                self._scorer.plan(candidate)
            elif candidate.kind == "ensemble" and self._scorer.network(0).task in ("panoptic", "detection"):
                raise PlanError("an output ensemble averages class probabilities, which this task does not have")
        except HfLwmmError as error:
            self.skipped.append(Skipped(candidate, error.lines[0]))
            return False
        return True
