"""Write the card of a converted model: what it was, how to load it, and the command that makes it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__
from hf_lwmm.describing.libraries import SMP, TIMM
from hf_lwmm.hub import Source, model_page, parse_hub_ref
from hf_lwmm.options import option_arguments
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.publishing.licences import Licence
from hf_lwmm.publishing.lineage import Lineage
from hf_lwmm.publishing.rendering import render
from hf_lwmm.publishing.tasks import TASKS
from hf_lwmm.publishing.usage import auto_class_usage, library_usage
from hf_lwmm.text import Markdown, code, joined, link, shell_line

if TYPE_CHECKING:
    from hf_lwmm.networks.loaded_model import LoadedModel

_CLASSES_SHOWN = 40
_LOADERS = {TIMM: Markdown("timm"), SMP: Markdown("`from_pretrained` of segmentation_models.pytorch")}


def render_converted_card(
    loaded: LoadedModel,
    network: NetworkOptions,
    licence: Licence,
    title: str,
    repo_id: str | None,
    lineage: Lineage | None = None,
) -> str:
    """Return the card as Markdown with YAML metadata.

    The card names only what others can see: local files by their last part, never by a path.

    Args:
        loaded: the network that was converted.
        network: the options that it was loaded with.
        licence: the licence to state.
        title: the repository id, or the name of the folder.
        repo_id: the repository, None if it is not pushed.
        lineage: what the original says of itself if it is a merge.
    """
    source = loaded.source
    named = [name for name in loaded.classes if not name.startswith("LABEL_")]
    shown = ", ".join(named[:_CLASSES_SHOWN]) + (", ..." if len(named) > _CLASSES_SHOWN else "")
    origin = str(source.exact) if source.sha else source.ref.shown
    data = {
        "base_model": _base(source, lineage) or None,
        "base_model_relation": "merge" if lineage is not None else None,
        "library_name": loaded.library,
        **licence.metadata,
        "pipeline_tag": TASKS[loaded.task].pipeline_tag,
        "inference": False if loaded.segments_by_one_row else None,  # as for a merge
        "tags": [
            *("hf-lwmm", *(["merge"] if lineage is not None else [])),
            *(["custom_code"] if loaded.has_own_code else []),
        ],
        "metrics": lineage.metrics if lineage is not None else None,
        "model-index": _renamed(lineage.model_index, title) if lineage is not None else None,
    }
    return render(
        "converted",
        data,
        title=title,
        source=origin,
        architecture=loaded.family.name,
        own_code=loaded.has_own_code,
        loader=_LOADERS.get(loaded.library, Markdown("`from_pretrained` of transformers")),
        usage=_usage(loaded, title, repo_id),
        classes=f"{len(named)} classes: {shown}." if named else "",
        notes=loaded.notes,
        merged=lineage is not None,
        parents=joined(_parents(lineage)) if lineage is not None else "",
        verdict=lineage.verdict if lineage is not None else "",
        pictures=[name for name in lineage.files if name.endswith(".png")] if lineage is not None else (),
        recipe=lineage.recipe.to_yaml() if lineage is not None else "",
        version=__version__,
        command=convert_command(origin, network),
    )


def _usage(loaded: LoadedModel, title: str, repo_id: str | None) -> str:
    if loaded.library_config:
        return library_usage(loaded.library_config, repo_id, title)
    return auto_class_usage(loaded.auto_class, title, own_code=loaded.has_own_code)


def _base(source: Source, lineage: Lineage | None) -> list[str]:
    """The models of the Hub that it comes from: the parents of a merge, or else the original."""
    if lineage is not None and lineage.parents:
        return list(lineage.parents)
    return [source.ref.repo_id] if source.ref.repo_id else []


def _parents(lineage: Lineage) -> list[Markdown]:
    """The parents, with links to those on the Hub at their commits."""
    recipe = lineage.recipe
    shown = []
    for model in recipe.models:
        ref = None if model in recipe.local else parse_hub_ref(model)
        there = link(model, model_page(ref.repo_id, ref.revision)) if ref is not None and ref.repo_id else code(model)
        shown.append(there)
    return shown


def _renamed(index: list[Any] | None, title: str) -> list[Any] | None:
    return index and [{**entry, "name": title} for entry in index]


def convert_command(source: str, network: NetworkOptions) -> str:
    """Return the command line that converts `source` with these options."""
    # Device and type leave no trace in what is written.
    stated = NetworkOptions(system=network.system, labels=network.labels, branch=network.branch)
    return shell_line(["hf-lwmm", "convert", source, *option_arguments(stated)])
