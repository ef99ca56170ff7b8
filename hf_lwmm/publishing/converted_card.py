"""Write the card of a converted model: what it was, how to load it, and the command that makes it again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from hf_lwmm._version import __version__
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.publishing.command import option_arguments
from hf_lwmm.publishing.licences import Licence
from hf_lwmm.publishing.rendering import render
from hf_lwmm.publishing.tasks import TASKS
from hf_lwmm.publishing.usage import auto_class_usage

if TYPE_CHECKING:
    from hf_lwmm.networks.loading import LoadedModel

_CLASSES_SHOWN = 40


def render_converted_card(loaded: LoadedModel, network: NetworkOptions, licence: Licence, title: str) -> str:
    """Return the card as Markdown with YAML metadata.

    The card names only what others can see: local files by their last part, never by a path.

    Args:
        loaded: the network that was converted.
        network: the options that it was loaded with.
        licence: the licence to state.
        title: the repository id, or the name of the folder.
    """
    source = loaded.source
    named = [name for name in loaded.classes if not name.startswith("LABEL_")]
    shown = ", ".join(named[:_CLASSES_SHOWN]) + (", ..." if len(named) > _CLASSES_SHOWN else "")
    origin = str(source.ref.at(source.sha)) if source.sha else source.ref.shown
    data = {
        "base_model": [source.ref.repo_id] if source.ref.repo_id else None,
        "library_name": "transformers",
        **licence.metadata,
        "pipeline_tag": TASKS[loaded.task].pipeline_tag,
        "tags": ["hf-lwmm", *(["custom_code"] if loaded.has_own_code else [])],
    }
    return render(
        "converted",
        data,
        title=title,
        source=origin,
        architecture=loaded.family.name,
        own_code=loaded.has_own_code,
        usage=auto_class_usage(loaded.auto_class, title, own_code=loaded.has_own_code),
        classes=f"{len(named)} classes: {shown}." if named else "",
        notes=loaded.notes,
        version=__version__,
        command=convert_command(origin, network),
    )


def convert_command(source: str, network: NetworkOptions) -> str:
    """Return the command line that converts `source` with these options."""
    # Device and type leave no trace in what is written.
    stated = NetworkOptions(system=network.system, labels=network.labels, branch=network.branch)
    return shlex.join(["hf-lwmm", "convert", source, *option_arguments(stated)])
