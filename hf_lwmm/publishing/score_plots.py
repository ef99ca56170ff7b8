"""Draw the plots of a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm.files.targets import TargetFolder, as_target_folder
from hf_lwmm.plots.scores import plot_confusion

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport

NAMES = ("scores.png", "confusion_*.png")


def save_score_plots(report: EvaluationReport, folder: Path | TargetFolder) -> list[Path]:
    """Plot the scores of a report as scores.png and, for class maps, the confusion of the Nth model as confusion_N.png.

    Args:
        report: the scores of models on a data set.
        folder: folder for the plots, made if it does not exist.

    Returns:
        The files written.
    """
    place = as_target_folder(folder)
    place.path.mkdir(parents=True, exist_ok=True)
    targets = [place.file("scores.png")]
    report.plot().save(targets[0])
    if report.confusion is not None:
        for number, (model, table) in enumerate(zip(report.models, report.confusion, strict=True), start=1):
            targets.append(place.file(f"confusion_{number}.png"))
            plot_confusion(report.classes, table, targets[-1], model=model.name)
    return [each.path for each in targets]
