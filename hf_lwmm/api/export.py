"""A checkpoint of a training repository as a model repository that one line of transformers loads."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from hf_lwmm import hub
from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.atomic import check_target, staged
from hf_lwmm.hub import Pushed
from hf_lwmm.hub.refs import ModelRef, parse_ref
from hf_lwmm.networks.loading import LoadedModel, load
from hf_lwmm.publishing.licences import merged_licence

_PIPELINE = {
    "semantic": "AutoModelForSemanticSegmentation",
    "panoptic": "AutoModelForUniversalSegmentation",
    "classification": "AutoModelForImageClassification",
}


@dataclass(frozen=True)
class Export:
    """A network that was written: where it is, and what its user should know."""

    loaded: LoadedModel = field(repr=False)
    folder: Path | None
    pushed: Pushed | None
    notes: tuple[str, ...]


def export(
    model: str | Path | ModelRef,
    target: str | Path | None = None,
    *,
    push: str | bool = False,
    private: bool = False,
    create_pr: bool = False,
    license: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    **loading: Any,
) -> Export:
    """Write a model as a network with its configuration, image processor, code and card, and push it.

    Args:
        model: a reference, as for `merge`.
        target: the folder to write; the model's name if None and nothing is pushed.
        push: True for `<user>/<model's name>`, or a repository id.
        loading: as for `hf_lwmm.load`.

    Raises:
        HfLwmmError: a subclass; nothing half-written remains.
    """
    ref = parse_ref(model)
    repo_id = hub.target_repo(push, ref.name) if push else None
    if repo_id:
        hub.check_push(repo_id, create_pr=create_pr)
    path = None if target is None and repo_id else Path(target or ref.name)
    if path is not None:
        check_target(path, overwrite)
    progress("Loading", 0, 2)
    loaded = load(ref, dtype="stored", **loading)
    progress("Writing", 1, 2)
    with staged(path) as folder:
        loaded.save(folder)
        licence = merged_licence([loaded.source], license)
        title = repo_id or (path.name if path else ref.name)
        (folder / "README.md").write_text(_card(loaded, licence.licence, title, loading), encoding="utf-8")
        pushed = None
        if repo_id:
            names = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
            message = f"Convert {loaded.source.label} with hf-lwmm"
            pushed = hub.push_folder(folder, names, repo_id, message=message, private=private, create_pr=create_pr)
    return Export(loaded, path, pushed, (*loaded.notes, *licence.warnings))


def _card(loaded: LoadedModel, licence: Any, title: str, loading: dict[str, Any]) -> str:
    source, own = loaded.source, type(loaded.model).__module__.startswith("hf_lwmm.")
    auto = _PIPELINE[loaded.task]
    trust = ", trust_remote_code=True" if own else ""
    lines = [f"from transformers import AutoImageProcessor, {auto}", ""]
    lines += [f'model = {auto}.from_pretrained("{title}"{trust})']
    lines += [f'image_processor = AutoImageProcessor.from_pretrained("{title}"{trust})']
    data = ModelCardData(
        base_model=[source.ref.repo_id] if source.ref.repo_id else None,
        library_name="transformers",
        license=licence.id,
        license_name=licence.name if licence.id == "other" else None,
        license_link=licence.link if licence.id == "other" else None,
        pipeline_tag="image-classification" if loaded.task == "classification" else "image-segmentation",
        tags=["hf-lwmm", *(["custom_code"] if own else [])],
    )
    named = [name for name in loaded.classes if not name.startswith("LABEL_")]
    shown = str(source.ref.at(source.sha)) if source.sha else source.ref.shown
    template = files("hf_lwmm.publishing").joinpath("templates/converted.md.jinja").read_text(encoding="utf-8")
    return str(
        ModelCard.from_template(
            data,
            template_str=template,
            title=title,
            source=shown,
            architecture=loaded.family.name,
            library="hf-lwmm" if own else "transformers",
            usage="\n".join(lines),
            classes=f"{len(named)} classes: {', '.join(named[:40])}" if named else "",
            notes=loaded.notes,
            version=__version__,
            command=_command(shown, loading),
        )
    )


def _command(source: str, loading: dict[str, Any]) -> str:
    parts = ["hf-lwmm", "convert", source]
    for name in ("system", "branch"):
        if loading.get(name) not in (None, "student"):
            parts += [f"--{name}", str(loading[name])]
    labels: Sequence[Any] = loading.get("labels") or ()
    for each in labels:
        parts += ["--labels", str(each) if isinstance(each, str) else ",".join(map(str, each))]
    return shlex.join(parts)
