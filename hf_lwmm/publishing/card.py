"""Write the model card of a merge: parents, method, licence, scores, and how to make it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.hub import Source
from hf_lwmm.hub.refs import is_repo_id
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.recipe import Recipe
from hf_lwmm.publishing.command import merge_command
from hf_lwmm.publishing.eval_results import model_index
from hf_lwmm.publishing.licences import MergedLicence
from hf_lwmm.publishing.rendering import render
from hf_lwmm.publishing.tasks import has_bare_class, is_timm, pipeline_tag, task_of
from hf_lwmm.publishing.usage import usage
from hf_lwmm.text import Markdown, code, joined, link, plain

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport

_REASONS_SHOWN = 12
_CLASSES_SHOWN = 20


@dataclass(frozen=True)
class CardExtras:
    """Files beside the card: scores, pictures of examples, the plot of the layer weights, code of the anchor."""

    report: EvaluationReport | None = None
    pictures: Sequence[str] = ()
    plot: str = ""
    code: Sequence[str] = ()


def render_card(
    plan: MergePlan,
    recipe: Recipe,
    licence: MergedLicence,
    title: str,
    repo_id: str | None,
    extras: CardExtras = CardExtras(),
) -> str:
    """Return the card as Markdown with YAML metadata.

    The card names only what others can see: local models by their last part, never by a path.

    Raises:
        CardError: if the metadata is not what the Hub accepts.
    """
    anchor, tuning = plan.anchor, plan.tuning
    return render(
        "card",
        _metadata(plan, licence, title, extras.report),
        title=title,
        repo_id=repo_id,
        version=__version__,
        architecture=anchor.slot_map.architecture if anchor.slot_map.matches else "",
        models=[_parent(plan, licence, i) for i in range(len(plan.checkpoints))],
        warnings=(*licence.warnings, *plan.alignment.notes),
        shared_parameters=plan.alignment.shared_parameters,
        anchor_parameters=plan.alignment.anchor_parameters,
        positions=plan.alignment.positions,
        classes=_classes(anchor),
        unshared=_unshared(plan),
        method=plan.method,
        layerwise=plan.method.name == Layerwise.name,
        base=_link(plan.base.source) if plan.base else "",
        measurements=joined(_link(checkpoint.source) for checkpoint in plan.measurements),
        tuned=_images(tuning.images) if tuning and tuning.images else "",
        how=tuning.notes if tuning else (),
        bn_images=_images(recipe.bn_images) if recipe.bn_images else "",
        bn_part=_bn_part(plan.knobs.bn_mix),
        knobs=_knobs(plan),
        advised=_advised(plan),
        scores=extras.report.to_markdown() if extras.report else "",
        pictures=extras.pictures,
        plot=extras.plot,
        code=joined(map(code, extras.code)),
        code_source=_link(anchor.source),
        usage=usage(anchor, recipe.output, repo_id, title),
        command=merge_command(recipe),
    )


def _knobs(plan: MergePlan) -> str:
    changed = {name: value for name, value in plan.knobs.changed().items() if name != "method"}
    options = plan.method.changed() if plan.method.name == Layerwise.name else plan.method.options
    every = {**options, **changed}
    return ", ".join(f"{name} = {_shown(value)}" for name, value in every.items()) or (
        "the paper's" if plan.method.name == Layerwise.name else "the defaults"
    )


def _bn_part(mix: float | None) -> str:
    return "" if mix in (None, 1) else f", and mixed with the merged ones ({mix:g} of the estimates)"


def _advised(plan: MergePlan) -> Markdown:
    """Why the method was advised, empty if it was not, or nobody said what the merge is for."""
    advice = plan.advice
    told = advice is not None and advice.known.target is not None and advice.method == plan.method.name
    return plain(advice.why) if advice is not None and told else Markdown("")


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(f"{len(each)} classes" if isinstance(each, tuple) else str(each) for each in value)


def _metadata(plan: MergePlan, licence: MergedLicence, title: str, report: EvaluationReport | None) -> dict[str, Any]:
    sources = [checkpoint.source for checkpoint in plan.checkpoints]
    parents = list(dict.fromkeys(source.ref.repo_id for source in sources if source.ref.repo_id))
    task, anchor = task_of(plan.anchor), plan.anchor
    library = "timm" if is_timm(anchor) else "transformers" if "model_type" in anchor.config else "hf-lwmm"
    return {
        "base_model": parents or None,
        "datasets": _datasets(sources) or None,
        "library_name": library,
        **licence.licence.metadata,
        "pipeline_tag": pipeline_tag(anchor),
        "tags": ["merge", "lwmm", "layer-wise-model-merging", *([task.tag] if task else [])],
        "base_model_relation": "merge" if parents else None,
        "model-index": model_index(report, title) if report is not None else None,
    }


def _datasets(sources: list[Source]) -> list[str]:
    """The data sets of the Hub that the parents' cards name."""
    found: dict[str, None] = {}
    for source in sources:
        stated = source.card.get("datasets") or []
        found |= dict.fromkeys(map(str, [stated] if isinstance(stated, str) else stated))
    return [name for name in found if is_repo_id(name)]


def _parent(plan: MergePlan, licence: MergedLicence, index: int) -> dict[str, Any]:
    source = plan.checkpoints[index].source
    return {
        "link": _link(source),
        "commit": source.sha[:12] if source.sha else "",
        "anchor": index == plan.alignment.anchor,
        "first_weight": _first_weight(plan, index),
        "licence": licence.parents[index].shown,
    }


def _link(source: Source) -> Markdown:
    repo_id = source.ref.repo_id
    if repo_id is None:
        return Markdown(f"{code(source.ref.shown)} (a local file)")
    found = link(repo_id, f"https://huggingface.co/{repo_id}")
    return Markdown(f"{found} {code('+'.join(source.ref.files))}") if source.ref.files else found


def _images(images: ImageProvenance) -> Markdown:
    if images.local:
        where = f"{code(images.data)} (a local folder)"
    else:
        where = link(images.data, f"https://huggingface.co/datasets/{images.data}")
        where = f"{where} {code(images.commit[:12])}" if images.commit else where
    return Markdown(f"{where}, split {plain(images.split)} ({images.limit} images)")


def _first_weight(plan: MergePlan, index: int) -> str:
    if plan.layer_weights is None:
        return ""
    weight = plan.layer_weights[0, index] if plan.layer_weights.size else float(index == plan.alignment.anchor)
    return f"{weight:.3f}"


def _classes(anchor: Checkpoint) -> str:
    """A sentence about the classes, empty for a network without classes and for one whose code base knows them."""
    if names := anchor.classes:
        shown = ", ".join(names[:_CLASSES_SHOWN]) + (", ..." if len(names) > _CLASSES_SHOWN else "")
        return f"The classes are the anchor's: {len(names)} classes ({shown})."
    task = task_of(anchor)
    classless = is_timm(anchor) or has_bare_class(anchor) or (task is not None and task.name in ("features", "depth"))
    return "" if classless else "The anchor's files do not name its classes."


def _unshared(plan: MergePlan) -> list[dict[str, Any]]:
    anchors = [u for u in plan.alignment.unshared if u.model == plan.alignment.anchor]
    counts = Counter(entry.reason for entry in anchors)
    example = {entry.reason: entry.slot for entry in reversed(anchors)}
    return [
        {"count": count, "text": reason, "example": example[reason]}
        for reason, count in counts.most_common(_REASONS_SHOWN)
    ]
