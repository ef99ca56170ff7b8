"""Rank the candidates of a sweep, with intervals that separate real differences from chance in the choice of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_lwmm._version import __version__
from hf_lwmm.errors import naming_extras
from hf_lwmm.evaluation.per_image import padded
from hf_lwmm.evaluation.report import difference_cells, known, report, span
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.evaluation.verdict import FEWEST, Verdict
from hf_lwmm.metrics.bootstrap import Interval, interval
from hf_lwmm.planning.advice import Advice
from hf_lwmm.plots import Plot, plot_knob, plot_subsets
from hf_lwmm.sweeping.confirmation import Confirmation
from hf_lwmm.sweeping.grid import Skipped, short_labels
from hf_lwmm.sweeping.rows import SweepRow
from hf_lwmm.sweeping.scorer import Scored, SweepData
from hf_lwmm.text import first_few, one_line, plain, table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class SweepReport:
    """All candidates of a sweep, the best first, and those that were skipped, with reasons.

    `labels` are the models' names, in the order that candidates count them. `advice` is how to merge all of them with
    the first as the anchor, by what was known before anything was scored. `confirmation` is the best one's score on a
    split that did not choose it, None if none was named. `decided` is the verdict by the scores of all candidates but
    the ensembles.
    """

    metric: str
    data: SweepData
    labels: tuple[str, ...]
    rows: tuple[SweepRow, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    output: Path
    task: str = ""
    advice: Advice | None = None
    confirmation: Confirmation | None = None
    decided: Verdict | None = field(default=None, repr=False)

    @property
    def drawn(self) -> str:
        """The units that intervals are over, such as "images" or "12 runs of frames"."""
        return str(self.data.groups) if self.data.groups else "images"

    @property
    def best(self) -> SweepRow:
        """The candidate with the highest score."""
        return self.rows[0]

    @property
    def best_model(self) -> SweepRow:
        """The model or merge with the highest score: an ensemble is no model that somebody could keep."""
        return next(row for row in self.rows if row.candidate.kind != "ensemble")

    @property
    def listed(self) -> list[SweepRow]:
        """The rows of the table: equal merges once."""
        return [row for row in self.rows if not row.repeats]

    @property
    def key(self) -> str:
        """The sentence on the marks and the short names in the table; empty if there are none."""
        marks = ["A star marks the anchor"] if any(row.candidate.kind == "merge" for row in self.rows) else []
        if any(row.ties_with_best for row in self.listed[1:]):
            marks.append("= marks what these images do not tell apart from the best")
        names = zip(short_labels(self.labels), self.labels, strict=True)
        marks += [f"{short} is {label}" for short, label in names if short != label]
        return f"{'; '.join(marks)}." if marks else ""

    @property
    def verdict(self) -> Verdict | None:
        """The model to use, by the candidates' scores, or if a merge won, by those on the split that confirms it."""
        return (self.confirmation and self.confirmation.verdict) or self.decided

    @property
    def chosen(self) -> SweepRow | None:
        """The candidate that the verdict names, None without a verdict."""
        return next((row for row in self.rows if self.verdict and row.name == self.verdict.model), None)

    @property
    def remarks(self) -> str:
        """The sentences on how sure the first place is, and how far its score can be trusted."""
        texts, rows = [], self.listed
        if len(rows) > 1:
            following, ties = rows[1], sum(row.ties_with_best for row in rows[1:])
            assert following.behind is not None and following.behind_interval is not None
            low, high = following.behind_interval
            by = f"{100 * abs(following.behind):.2f} points ({span(Interval(-high, -low), signed=True)})"
            if following.ties_with_best and self.data.units < FEWEST:
                units = f"{self.data.units} {self.data.groups.name if self.data.groups else 'images'}"
                lead = f"{self.best.name} leads {following.name} by {by}"
                texts.append(f"{lead}, but {units} are too few to tell: it takes at least {FEWEST}.")
            elif following.ties_with_best:
                texts.append(f"{self.best.name} leads {following.name} by {by}: these images do not tell them apart.")
            else:
                texts.append(f"{self.best.name} leads {following.name} by {by}.")
            if ties > 1:
                texts.append(f"{ties} candidates are not distinguishable from the best (marked =).")
        chosen = f"The best of {len(rows)} was chosen by these very scores, so its own is optimistic"
        if self.confirmation is None:
            texts.append(f"{chosen}: score it on other images (--confirm SPLIT).")
        else:
            texts += [f"{chosen}.", self.confirmation.sentence]
        return " ".join(texts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: fractions, not per cent, and None where something does not occur."""
        return {
            "metric": self.metric,
            "dataset": self.data.name,
            "commit": self.data.commit,
            "protocol": self.data.classes.protocol,
            "images": self.data.images,
            "intervals_over": self.drawn,
            "hf_lwmm": __version__,
            "models": list(self.labels),
            "candidates": [
                {
                    "rank": row.rank,
                    "candidate": row.name,
                    "kind": row.candidate.kind,
                    "models": [self.labels[model] for model in row.candidate.models],
                    "anchor": None if row.candidate.kind == "ensemble" else self.labels[row.candidate.anchor],
                    "knobs": row.candidate.to_dict()["knobs"],
                    "trial": row.candidate.trial,
                    "score": known(row.score),
                    "interval": list(row.interval),
                    "difference": row.difference,
                    "difference_interval": list(row.difference_interval) if row.difference_interval else None,
                    "to_anchor": row.to_anchor,
                    "to_anchor_interval": list(row.to_anchor_interval) if row.to_anchor_interval else None,
                    "behind": row.behind,
                    "behind_interval": list(row.behind_interval) if row.behind_interval else None,
                    "by_class": dict(zip(self.data.classes.names, map(known, row.by_class.tolist()), strict=True)),
                    "seconds": round(row.seconds, 3),
                }
                for row in self.rows
            ],
            "skipped": [
                {"candidate": each.candidate.name(self.labels), "reason": each.reason} for each in self.skipped
            ],
            "remarks": self.remarks,
            "verdict": self.verdict and self.verdict.to_dict(),
            "confirmation": self.confirmation and self.confirmation.to_dict(),
            "advice": self.advice and self.advice.to_dict(),
            "notes": list(self.notes),
        }

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's rows as text, in per cent; = marks what is not distinguishable from the best."""
        return [
            (
                f"{row.rank}{' =' if row.rank > 1 and row.ties_with_best else ''}",
                f"{row.name}{self._other_anchors(row)}",
                f"{100 * row.score:.2f}",
                span(row.interval),
                *difference_cells(row.difference, row.difference_interval),
                *difference_cells(row.to_anchor, row.to_anchor_interval),
            )
            for row in self.listed
        ]

    def _other_anchors(self, row: SweepRow) -> str:
        """A note on the anchors of the merges that a row stands for."""
        places = [each.candidate.anchor for each in self.rows if each.repeats and each.rank == row.rank]
        names = short_labels(self.labels)
        return f" (the same with the anchor {' or '.join(names[place] for place in sorted(places))})" if places else ""

    @property
    def header(self) -> tuple[str, ...]:
        """The table's columns."""
        of_differences = ("to the best model", "interval", "to its anchor", "interval")
        return ("rank", "candidate", self.metric, "interval", *of_differences)

    def skipped_by_reason(self) -> dict[str, list[str]]:
        """Return the names of the skipped candidates by the reason."""
        found: dict[str, list[str]] = {}
        for each in self.skipped:
            found.setdefault(each.reason, []).append(each.candidate.name(self.labels))
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return a row of plain data for each candidate, the best first; see the table in `hf_lwmm.sweeping`."""
        return [row.record(self.labels, self.metric) for row in self.rows]

    def plot(self, knob: str | None = None) -> Plot:
        """Draw the scores over the subsets of the models, as `plot_subsets`, or over a knob, as `plot_knob`.

        Args:
            knob: `start`, `alpha` or `ramp`; None for the subsets.

        Raises:
            PlotError: if no two merges differ in the knob alone.
        """
        if knob is None:
            return Plot.of(lambda file: plot_subsets(self.records(), file, self.metric))
        return Plot.of(lambda file: plot_knob(self.records(), knob, file, self.metric))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each candidate, the best first, with the columns of the sweep's Parquet file.

        Raises:
            ExtraError: if pandas is not installed.
        """
        with naming_extras("A data frame"):
            import pandas
        return pandas.DataFrame(self.records())

    @property
    def summary(self) -> str:
        """A summary of what was scored: candidates, images and classes, and what intervals are over."""
        classes = self.data.classes
        return (
            f"{len(self.listed)} candidates on {self.data.images} images of {self.data.name}, {len(classes.rows)} "
            f"classes ({classes.protocol}). Intervals are 95 % over {self.drawn}."
        )

    def to_markdown(self) -> str:
        """Return the ranked table, remarks on the first place, what was skipped, and the verdict."""
        lines = [plain(self.summary), "", table(self.header, self.cells()), ""]
        lines += [*([plain(self.key), ""] if self.key else []), plain(self.remarks)]
        if self.skipped:
            lines += ["", f"Skipped ({len(self.skipped)}):", ""]
            lines += [f"- {plain(why)} ({plain('; '.join(names))})" for why, names in self.skipped_by_reason().items()]
        if self.verdict is not None:
            lines += ["", plain(self.verdict.sentence)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        best = [f"{one_line(row.name)} {100 * row.score:.2f}" for row in self.listed]
        return f"<SweepReport: {self.metric} {first_few(best)}; {one_line(self.summary)}>"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def rank(
    scored: Sequence[Scored], skipped: Sequence[Skipped], data: SweepData, labels: Sequence[str], output: Path
) -> SweepReport:
    """Return the candidates ranked by their scores.

    Of equal scores, models come before merges and ensembles, and fewer models before more.

    Args:
        scored: the candidates' counts, in any order.
        skipped: what was left out.
        data: the data set and its scored classes.
        labels: the models' names, in the order that candidates count them.
        output: the Parquet file.
    """
    metric = METRICS[scored[0].task]
    counts = dict(
        zip((each.candidate for each in scored), padded([each.counts for each in scored], axis=1), strict=True)
    )
    score = {candidate: metric.mean(own, data.classes.rows) for candidate, own in counts.items()}
    order = sorted(scored, key=lambda each: (-np.nan_to_num(score[each.candidate], nan=-1.0), *each.candidate.place))
    single = next((each.candidate for each in order if each.candidate.kind == "model"), None)
    # The report compares with the first: the best single model, if there is one.
    reference = [*([single] if single else []), *(each.candidate for each in order if each.candidate != single)]
    names = [candidate.name(labels) for candidate in reference]
    stacked = np.stack([counts[each] for each in reference])
    kinds = [candidate.kind for candidate in reference]
    found = report(metric, data.name, names, stacked, data.classes, kinds=kinds, groups=data.groups)
    scores = dict(zip(reference, found.models, strict=True))
    best = scores[order[0].candidate]
    alone = {each.anchor: scores[each] for each in reference if each.kind == "model"}
    rows, ranks = list[SweepRow](), dict[object, int]()
    few = data.units < FEWEST
    for each in order:
        own, first, seen = scores[each.candidate], not rows, len(ranks)
        place = ranks.setdefault(_content(each), seen + 1)
        anchor = alone.get(each.candidate.anchor) if each.candidate.kind == "merge" else None
        behind = None if first else interval(own.resamples - best.resamples)
        rows.append(
            SweepRow(
                rank=place,
                name=own.name,
                candidate=each.candidate,
                score=own.mean,
                interval=own.interval,
                difference=own.difference if single else None,
                difference_interval=own.difference_interval if single else None,
                to_anchor=own.mean - anchor.mean if anchor else None,
                to_anchor_interval=interval(own.resamples - anchor.resamples) if anchor else None,
                behind=None if first else own.mean - best.mean,
                behind_interval=behind,
                by_class=own.by_class,
                seconds=each.seconds,
                repeats=place <= seen,
                ties_with_best=few or behind is None or behind.high >= 0,
            )
        )
    return SweepReport(
        metric=metric.name,
        data=data,
        labels=tuple(labels),
        rows=tuple(rows),
        skipped=tuple(skipped),
        notes=_notes(scored, data),
        output=output,
        task=metric.task,
        decided=found.verdict,
    )


def _notes(scored: Sequence[Scored], data: SweepData) -> tuple[str, ...]:
    """The notes on the data and on the single models, each once."""
    own = [note for each in scored if each.candidate.kind == "model" for note in each.notes]
    return tuple(dict.fromkeys([*data.notes, *(note for note in own if not note.startswith(f"{data.name}: "))]))


def _content(scored: Scored) -> object:
    """A value that scored merges have in common which are equal but for the anchor, and no others."""
    candidate = scored.candidate
    if candidate.kind == "merge":
        candidate = replace(candidate, anchor=candidate.models[0], trial=None)
    return candidate, scored.counts.tobytes()
