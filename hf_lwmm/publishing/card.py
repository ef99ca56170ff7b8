"""Write the model card of a merge: parents, method, licence, scores, and how to make it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES
from hf_lwmm.errors import CardError
from hf_lwmm.hub import Source
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.recipe import Recipe
from hf_lwmm.publishing.command import merge_command
from hf_lwmm.publishing.eval_results import model_index
from hf_lwmm.publishing.licences import MergedLicence

if TYPE_CHECKING:
    from hf_lwmm.evaluation.report import EvaluationReport

_REASONS_SHOWN = 12
_LOAD_TRANSFORMERS = """from transformers import pipeline

segment = pipeline("image-segmentation", model="{model}")
masks = segment("street.jpg")"""
_LOAD_NETWORK = """import hf_lwmm

loaded = hf_lwmm.load("{model}")  # a network of transformers, its image processor and its classes"""
_NETWORKS = {"daformer", "segformer", "segformer_mmseg", "deeplab", "diga", "bottleneck"}  # heads that have one
_LOAD_STATE_DICT = """from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

state_dict = load_file(hf_hub_download("{model}", "{file}"))  # names of {layout}"""
_LOAD_TORCH_FILE = """from huggingface_hub import hf_hub_download

checkpoint = hf_hub_download("{model}", "{file}")  # load it as the anchor's own code loads the anchor"""


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
    from huggingface_hub import ModelCard

    template = files("hf_lwmm.publishing").joinpath("templates/card.md.jinja").read_text(encoding="utf-8")
    anchor, tuning = plan.anchor, plan.tuning
    try:
        card = ModelCard.from_template(
            _metadata(plan, licence, title, extras.report),
            template_str=template,
            title=title,
            repo_id=repo_id,
            version=__version__,
            architecture=anchor.slot_map.architecture if anchor.slot_map.matches else "",
            models=[_parent(plan, licence, i) for i in range(len(plan.checkpoints))],
            warnings=(*licence.warnings, *plan.alignment.notes),
            shared_parameters=plan.alignment.shared_parameters,
            anchor_parameters=plan.alignment.anchor_parameters,
            positions=plan.alignment.positions,
            classes=_classes(anchor.classes),
            unshared=_unshared(plan),
            method=plan.method,
            layerwise=plan.method.name == Layerwise.name,
            base=_link(plan.base.source) if plan.base else "",
            measurements=[_link(checkpoint.source) for checkpoint in plan.measurements],
            tuned=_images(tuning.images) if tuning and tuning.images else "",
            how=tuning.notes if tuning else (),
            bn_images=_images(recipe.bn_images) if recipe.bn_images else "",
            knobs=_knobs(plan),
            scores=extras.report.to_markdown() if extras.report else "",
            pictures=extras.pictures,
            plot=extras.plot,
            code=extras.code,
            code_source=_link(anchor.source),
            usage=_usage(plan, recipe, repo_id or title),
            command=merge_command(recipe),
        )
    except (ValueError, TypeError) as error:
        raise CardError(f"The model card's metadata cannot be written: {error}") from error
    return str(card)


def _knobs(plan: MergePlan) -> str:
    changed = {name: value for name, value in plan.knobs.changed().items() if name != "method"}
    options = plan.method.changed() if plan.method.name == Layerwise.name else plan.method.options
    every = {**options, **changed}
    return ", ".join(f"{name} = {_shown(value)}" for name, value in every.items()) or "the paper's"


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(f"{len(each)} classes" if isinstance(each, tuple) else str(each) for each in value)


def _metadata(plan: MergePlan, licence: MergedLicence, title: str, report: EvaluationReport | None) -> Any:
    from huggingface_hub import ModelCardData

    sources = [checkpoint.source for checkpoint in plan.checkpoints]
    parents = list(dict.fromkeys(source.ref.repo_id for source in sources if source.ref.repo_id))
    library = "transformers" if "model_type" in plan.anchor.config else "hf-lwmm"
    extra: dict[str, Any] = {"base_model_relation": "merge"} if parents else {}
    if report is not None:
        extra |= {"eval_results": model_index(report), "model_name": title}
    return ModelCardData(
        base_model=parents or None,
        library_name=library,
        license=licence.licence.id,
        license_name=licence.licence.name if licence.licence.id == "other" else None,
        license_link=licence.licence.link if licence.licence.id == "other" else None,
        pipeline_tag="image-segmentation",
        tags=["merge", "lwmm", "layer-wise-model-merging", "semantic-segmentation"],
        datasets=_datasets(sources) or None,
        **extra,
    )


def _datasets(sources: list[Source]) -> list[str]:
    found: dict[str, None] = {}
    for source in sources:
        stated = source.card.get("datasets") or []
        found |= dict.fromkeys(map(str, [stated] if isinstance(stated, str) else stated))
    return list(found)


def _parent(plan: MergePlan, licence: MergedLicence, index: int) -> dict[str, Any]:
    source = plan.checkpoints[index].source
    return {
        "link": _link(source),
        "commit": f"`{source.sha[:12]}`" if source.sha else "",
        "anchor": index == plan.alignment.anchor,
        "first_weight": _first_weight(plan, index),
        "licence": licence.parents[index].shown,
    }


def _link(source: Source) -> str:
    repo_id = source.ref.repo_id
    link = f"[{repo_id}](https://huggingface.co/{repo_id})" if repo_id else f"`{source.ref.shown}` (a local file)"
    return f"{link} `{'+'.join(source.ref.files)}`" if source.ref.files and repo_id else link


def _images(images: ImageProvenance) -> str:
    commit = f" `{images.commit[:12]}`" if images.commit else ""
    link = f"[{images.data}](https://huggingface.co/datasets/{images.data}){commit}"
    where = f"`{images.data}` (a local folder)" if images.local else link
    return f"{where}, split {images.split} ({images.limit} images)"


def _first_weight(plan: MergePlan, index: int) -> str:
    if plan.layer_weights is None:
        return ""
    weight = plan.layer_weights[0, index] if plan.layer_weights.size else float(index == plan.alignment.anchor)
    return f"{weight:.3f}"


def _classes(names: tuple[str, ...] | None) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:20])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 20 else ''})"


def _unshared(plan: MergePlan) -> list[dict[str, Any]]:
    anchors = [u for u in plan.alignment.unshared if u.model == plan.alignment.anchor]
    counts = Counter(entry.reason for entry in anchors)
    example = {entry.reason: entry.slot for entry in reversed(anchors)}
    return [
        {"count": count, "text": reason, "example": example[reason]}
        for reason, count in counts.most_common(_REASONS_SHOWN)
    ]


def _usage(plan: MergePlan, recipe: Recipe, model: str) -> str:
    if "model_type" in plan.anchor.config:
        return _LOAD_TRANSFORMERS.format(model=model)
    if _NETWORKS & {match.layout.component.name for match in plan.anchor.slot_map.matches}:
        return _LOAD_NETWORK.format(model=model)
    file = next(name for name in sorted(recipe.output) if name.endswith(WEIGHT_SUFFIXES))
    if not file.endswith(".safetensors"):
        return _LOAD_TORCH_FILE.format(model=model, file=file)
    return _LOAD_STATE_DICT.format(model=model, file=file, layout=plan.anchor.slot_map.layout)
