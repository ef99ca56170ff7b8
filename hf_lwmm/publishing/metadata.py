"""Make the metadata of a merge's card, in which the Hub looks for what it shows, filters and links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_lwmm import hub
from hf_lwmm.describing.libraries import library_of
from hf_lwmm.describing.promised_parts import lacking
from hf_lwmm.hub import Source
from hf_lwmm.hub.refs import is_repo_id
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.publishing.eval_results import metric_id, model_index
from hf_lwmm.publishing.licences import Licence
from hf_lwmm.publishing.tasks import pipeline_tag, segments_by_one_row, task_of

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport

_WIDGETS, _LONGEST = 5, 300  # pictures that the page of a model offers, and characters of their titles


def card_metadata(
    plan: MergePlan,
    licence: Licence,
    title: str,
    repo_id: str | None,
    report: EvaluationReport | None,
    images: Sequence[ImageProvenance],
    picture: str,
) -> dict[str, Any]:
    """Return the entries of the metadata; those that are None are left out.

    Args:
        plan: the merge.
        licence: the licence of the merge.
        title: what the card calls the model.
        repo_id: the repository of the merge, None if it is not pushed.
        report: the scores, if there are any.
        images: what layer weights and running statistics were estimated on.
        picture: the file that stands for the model where it is shared; empty if there is none.
    """
    sources = [checkpoint.source for checkpoint in plan.checkpoints]
    parents = list(dict.fromkeys(source.ref.repo_id for source in sources if source.ref.repo_id))
    task, anchor = task_of(plan.anchor), plan.anchor
    whole = "model_type" in anchor.config and not lacking(anchor)
    library = library_of(anchor.config) or ("transformers" if whole else "hf-lwmm")
    one_row = segments_by_one_row(anchor)
    return {
        "base_model": parents or None,
        "datasets": _datasets(sources, images) or None,
        "library_name": library,
        **licence.metadata,
        "metrics": [metric_id(report)] if report is not None else None,
        "pipeline_tag": pipeline_tag(anchor),
        "tags": [
            *("merge", "lwmm", "layer-wise-model-merging"),
            *([task.tag] if task else []),
            *(["custom_code"] if "auto_map" in anchor.config else []),
        ],
        "base_model_relation": "merge" if parents else None,
        "thumbnail": hub.file_address(repo_id, picture) if repo_id and picture else None,
        "widget": (_widget(anchor.source.card) or None) if library == "transformers" and not one_row else None,
        # The task stays, by which it is found, and which the Hub would read in config.json. Only its widget is wrong.
        "inference": False if one_row else None,
        "model-index": model_index(report, title) if report is not None else None,
    }


def _datasets(sources: Iterable[Source], images: Iterable[ImageProvenance]) -> list[str]:
    """The data sets of the Hub that the parents' cards name, and those that the merge itself was estimated on."""
    found: dict[str, None] = {}
    for source in sources:
        stated = source.card.get("datasets") or []
        found |= dict.fromkeys(map(str, [stated] if isinstance(stated, str) else stated))
    found |= dict.fromkeys(each.data for each in images if not each.local)
    return [name for name in found if is_repo_id(name)]


def _widget(card: Mapping[str, Any]) -> list[dict[str, str]]:
    """The pictures to try that the anchor's card offers, as far as they are addresses of the web."""
    stated = card.get("widget")
    found = []
    for entry in stated if isinstance(stated, list) else ():
        source = entry.get("src") if isinstance(entry, Mapping) else None
        if isinstance(source, str) and source.startswith(("https://", "http://")) and source.isprintable():
            title = entry.get("example_title")
            named = {"example_title": title[:_LONGEST]} if isinstance(title, str) and title else {}
            found.append({"src": source, **named})
    return found[:_WIDGETS]
