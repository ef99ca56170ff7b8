"""Write the scores of a merge beside its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm.errors import noting
from hf_lwmm.publishing.eval_results import eval_results_file
from hf_lwmm.publishing.superseded import EVALUATION, SCORE_PLOT

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport


def write_scores(report: EvaluationReport, folder: Path, undrawn: list[str]) -> tuple[str, ...]:
    """Write the scores for programs and for the Hub, their plot, and the example pictures; return the examples' names.

    Without matplotlib there is no plot.
    A merge is there to be published, so pictures are left out whose files lie in another place than the data.
    """
    from hf_lwmm.evaluation.examples import save_examples

    (folder / EVALUATION).write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    if (found := eval_results_file(report)) is not None:
        name, text = found
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shown = replace(report, examples=tuple(each for each in report.examples if not each.leads_out))
    if find_spec("matplotlib"):
        (folder / SCORE_PLOT).parent.mkdir(exist_ok=True)
        with noting(f"{SCORE_PLOT} was not drawn", undrawn):
            report.plot().save(folder / SCORE_PLOT)
    pictures: list[Path] = []
    with noting("Examples were not drawn", undrawn):
        pictures += save_examples(shown, folder / "plots")
    return tuple(path.relative_to(folder).as_posix() for path in pictures)


def examples_note(report: EvaluationReport) -> tuple[str, ...]:
    """A note on examples that are not among the files to publish."""
    names = [example.name for example in report.examples if example.leads_out]
    if not names:
        return ()
    return (
        f"Left out {len(names)} of the examples, whose files links bring into the folder of the data from elsewhere "
        f"({', '.join(names[:3])}): they would be published. Copies in the links' place are shown.",
    )
