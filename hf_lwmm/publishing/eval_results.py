"""The scores of a merge in the Hub's formats: `model-index` in the card, and a file under `.eval_results/`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hf_lwmm.files.documents import to_yaml
from hf_lwmm.publishing.tasks import TASKS

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport


def model_index(report: EvaluationReport, title: str) -> list[dict[str, Any]]:
    """Return the scores of the merge, a report's last model, for a card: the mean and each class that occurs.

    `title` is what the card calls the model.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    merged, metric = report.models[-1], report.metric
    name, _, split = report.dataset.partition(", split ")
    # The Hub makes a link of the type, so the name of a folder is no type: somebody's data set may be called like it.
    kind_of_data = name.split("@")[0] if report.commit is not None else "a local folder"
    common: dict[str, Any] = {
        "task_type": TASKS[metric.task].pipeline_tag,
        "dataset_type": kind_of_data,
        "dataset_name": name,
        "dataset_split": split or None,
        "dataset_revision": report.commit,
        "dataset_args": {"protocol": report.protocol},
    }
    mean = round(merged.mean, 6)
    found = [EvalResult(metric_type=metric_id(report), metric_value=mean, metric_name=metric.name, **common)]
    for label, value in zip(report.classes, merged.by_class.tolist(), strict=True):
        if not math.isnan(value):
            of_class = metric.of_class
            one = {"metric_type": of_class.lower(), "metric_value": round(value, 6)}
            one |= {"metric_name": f"{of_class} {label}", "metric_config": f"class:{label}"}
            found.append(EvalResult(**one, **common))
    return eval_results_to_model_index(title, found)


def metric_id(report: EvaluationReport) -> str:
    """Return the name of a report's metric as the Hub's metadata have it."""
    metric = report.metric
    return "mean_iou" if metric.task == "semantic" else metric.name.lower().replace(" ", "_")


def eval_results_file(report: EvaluationReport) -> tuple[str, str] | None:
    """Return the name and text of the file under `.eval_results/`; None if the data set is not on the Hub."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    if report.commit is None:
        return None
    name, _, split = report.dataset.partition(", split ")
    repo_id, merged = name.split("@")[0], report.models[-1]
    low, high = merged.interval
    entry = EvalResultEntry(
        dataset_id=repo_id,
        task_id="default",
        value=round(merged.mean, 6),
        dataset_revision=report.commit,
        notes=f"{report.metric.name}, split {split}, {report.protocol}, {report.images} images, "
        f"95% interval {low:.6f} to {high:.6f}",
    )
    text = to_yaml(eval_result_entries_to_yaml([entry]))
    return eval_results_name(report.dataset), text


def eval_results_name(dataset: str) -> str:
    """Return the name of the file with the scores on a data set, as reports call it."""
    from huggingface_hub.constants import EVAL_RESULTS_FOLDER

    repo_id = dataset.partition(", split ")[0].split("@")[0]
    return f"{EVAL_RESULTS_FOLDER}/{repo_id.replace('/', '--')}.yaml"
