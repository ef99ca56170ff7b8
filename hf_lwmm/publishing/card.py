"""Write the model card of a merge: parents, method, licence, scores, and how to make it again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_lwmm import hub
from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.companions import CONFIG, PROCESSORS
from hf_lwmm.checkpoints.dtypes import TORCH_NAMES
from hf_lwmm.describing.hosting import HostedNetwork, NotHosted
from hf_lwmm.describing.libraries import TIMM, library_of
from hf_lwmm.describing.stated_names import foreign_parts
from hf_lwmm.hub import Source
from hf_lwmm.hub.card import README
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.publishing.command import merge_command
from hf_lwmm.publishing.licences import MergedLicence
from hf_lwmm.publishing.metadata import card_metadata
from hf_lwmm.publishing.rendering import render
from hf_lwmm.publishing.tasks import has_bare_class, task_of
from hf_lwmm.publishing.usage import usage
from hf_lwmm.recipes.recipe import Recipe
from hf_lwmm.text import Markdown, code, joined, link, plain, table

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport

_REASONS_SHOWN = 12
_CLASSES_SHOWN = 20
# What a network of a task does, by the task's name.
_INTENDED = {
    "semantic": "gives each pixel of a picture one of the classes",
    "panoptic": "divides a picture into things and areas, and gives each of them one of the classes",
    "classification": "gives a picture one of the classes",
    "detection": "finds things in a picture, and gives each of them a box and one of the classes",
    "depth": "estimates the distance of each pixel of a picture",
    "features": "describes a picture by numbers, for a network that is trained on them",
}


@dataclass(frozen=True)
class CardExtras:
    """Files beside the card: scores, pictures of examples, plots of layer weights and scores, code of the anchor.

    `hosted` is what makes the merge a repository that transformers loads, beyond the anchor's files, or the reason why
    it is none.
    """

    report: EvaluationReport | None = None
    pictures: Sequence[str] = ()
    plot: str = ""
    code: Sequence[str] = ()
    score_plot: str = ""
    hosted: HostedNetwork | NotHosted | None = None


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
    hosted = extras.hosted if isinstance(extras.hosted, HostedNetwork) else None
    plan = _described(plan, hosted)
    anchor, tuning, report = plan.anchor, plan.tuning, extras.report
    picture = next((name for name in (*extras.pictures, extras.score_plot, extras.plot) if name), "")
    images = [each for each in (tuning.images if tuning else None, recipe.bn_images) if each is not None]
    return render(
        "card",
        card_metadata(plan, licence.licence, title, repo_id, report, images, picture),
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
        notes=extras.hosted.notes if extras.hosted else (),
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
        verdict=report.verdict.sentence if report and report.verdict else "",
        taken=bool(report and report.verdict and report.verdict.merged),
        result=picture if report else "",
        result_is_example=bool(extras.pictures),
        scores=report.summary if report else "",
        score_tables=[table(*each) for each in ((report.of_models(), report.of_classes()) if report else ())],
        pictures=extras.pictures[1:],
        score_plot=extras.score_plot if extras.pictures else "",
        plot=extras.plot,
        at_a_glance=_at_a_glance(plan, licence),
        use=_INTENDED.get(task.name if (task := task_of(anchor)) else ""),
        with_cards=_with_cards(plan),
        scored_on=report.scored_on if report else "",
        non_commercial=licence.licence.non_commercial,
        recipe=recipe.to_yaml(),
        code=joined(map(code, extras.code)),
        code_source=_link(anchor.source),
        own_code=joined(map(code, sorted(hosted.code))) if hosted else "",
        usage=usage(
            anchor,
            recipe.output,
            repo_id,
            title,
            processor=hosted is not None and not hosted.entries.keys().isdisjoint(PROCESSORS),
            as_file=isinstance(extras.hosted, NotHosted),
        ),
        command=merge_command(recipe),
        local=joined(map(code, dict.fromkeys(recipe.local))),
    )


def _described(plan: MergePlan, hosted: HostedNetwork | None) -> MergePlan:
    """The plan with the configuration that was written in place of the anchor's, and without what was left out."""
    if hosted is None:
        read = not foreign_parts(plan.anchor)  # else what its config.json describes does not find the tensors
        return plan if read else replace(plan, checkpoints=_with_anchor(plan, replace(plan.anchor, config={})))
    left = hosted.conversion.left_out if hosted.conversion is not None else frozenset[str]()
    written = {atom.tensor for slot, atom in plan.anchor.slot_map.slots.items() if slot not in left}
    tensors = {name: info for name, info in plan.anchor.tensors.items() if name in written}
    anchor = replace(plan.anchor, config={**plan.anchor.config, **hosted.entries.get(CONFIG, {})}, tensors=tensors)
    shared = [each for each in plan.alignment.shared if each.slot not in left]
    alignment = replace(
        plan.alignment,
        positions=len({each.position for each in shared}),
        shared=tuple(shared),
        unshared=tuple(each for each in plan.alignment.unshared if each.slot not in left),
        shared_parameters=sum(math.prod(each.shape) for each in shared),
        anchor_parameters=anchor.weight_count,
    )
    return replace(plan, checkpoints=_with_anchor(plan, anchor), alignment=alignment)


def _with_anchor(plan: MergePlan, anchor: Checkpoint) -> tuple[Checkpoint, ...]:
    return tuple(anchor if each is plan.anchor else each for each in plan.checkpoints)


def _at_a_glance(plan: MergePlan, licence: MergedLicence) -> list[tuple[str, object]]:
    """The facts that a visitor looks for first, by name."""
    anchor, task = plan.anchor, task_of(plan.anchor)
    names = anchor.classes or ()
    dtypes = Counter[str]()
    for info in anchor.tensors.values():
        dtypes[info.dtype] += info.count
    dtype = plan.knobs.dtype or TORCH_NAMES.get(dtypes.most_common(1)[0][0], "")
    entries: list[tuple[str, object]] = [
        ("Task", f"{task.tag.replace('-', ' ')}{f', {len(names)} classes' if names else ''}" if task else ""),
        ("Network", anchor.slot_map.architecture if anchor.slot_map.matches else ""),
        ("Size", f"{anchor.weight_count:,} weights{f' ({dtype})' if dtype else ''}"),
        ("Licence", licence.licence.shown if licence.licence.id else ""),
    ]
    return [(name, value) for name, value in entries if value]


def _with_cards(plan: MergePlan) -> Markdown:
    """Links to the parents that have a page or a card, once each."""
    sources = (checkpoint.source for checkpoint in plan.checkpoints)
    return joined(dict.fromkeys(_link(each) for each in sources if each.ref.repo_id or README in each.files))


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
    """The reason why the method was advised, empty if it was not, or nobody said what the merge is for."""
    advice = plan.advice
    told = advice is not None and advice.known.target is not None and advice.method == plan.method.name
    return plain(advice.why) if advice is not None and told else Markdown("")


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(f"{len(each)} classes" if isinstance(each, tuple) else str(each) for each in value)


def _parent(plan: MergePlan, licence: MergedLicence, index: int) -> dict[str, Any]:
    source = plan.checkpoints[index].source
    return {
        "link": _link(source),
        "commit": _commit(source),
        "anchor": index == plan.alignment.anchor,
        "first_weight": _first_weight(plan, index),
        "licence": licence.parents[index].shown,
    }


def _link(source: Source) -> Markdown:
    repo_id = source.ref.repo_id
    if repo_id is None:
        folder = not source.ref.files and source.ref.path is not None and source.ref.path.is_dir()
        return Markdown(f"{code(source.label)} (a local {'folder' if folder else 'file'})")
    found = link(repo_id, hub.model_page(repo_id))
    return Markdown(f"{found} {code('+'.join(source.ref.files))}") if source.ref.files else found


def _commit(source: Source) -> Markdown:
    """The commit of a model, as a link to its files there."""
    if source.ref.repo_id is None or source.sha is None:
        return Markdown("")
    return link(source.sha[:12], hub.model_page(source.ref.repo_id, source.sha))


def _images(images: ImageProvenance) -> Markdown:
    if images.local:
        where = f"{code(images.data)} (a local folder)"
    else:
        where = link(images.data, hub.data_page(images.data))
        commit = images.commit and link(images.commit[:12], hub.data_page(images.data, images.commit))
        where = f"{where} {commit}" if commit else where
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
    features = has_bare_class(anchor) or (task is not None and task.name in ("features", "depth"))
    classless = features or library_of(anchor.config) == TIMM
    return "" if classless else "The anchor's files do not name its classes."


def _unshared(plan: MergePlan) -> list[dict[str, Any]]:
    anchors = [u for u in plan.alignment.unshared if u.model == plan.alignment.anchor]
    counts = Counter(entry.reason for entry in anchors)
    example = {entry.reason: entry.slot for entry in reversed(anchors)}
    return [
        {"count": count, "text": reason, "example": example[reason]}
        for reason, count in counts.most_common(_REASONS_SHOWN)
    ]
