"""Find models on the Hub that can merge with a backbone or a model, by lists and headers alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hf_lwmm import hub
from hf_lwmm.api.inspect import stated_licence
from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows, open_checkpoint, with_labels
from hf_lwmm.errors import AlignmentError, HfLwmmError, PlanError
from hf_lwmm.hub import ListedModel, Ref, parse_ref
from hf_lwmm.labels import LabelSet, normalise, read_label_set
from hf_lwmm.layouts import COMPONENTS, Component, place_of
from hf_lwmm.planning.alignment import align
from hf_lwmm.progress import Progress, silent
from hf_lwmm.text import first_few, one_line, plain, table

Query = Mapping[str, str]

# How the Hub tags models that hold a backbone, or one of its kin: by transformers' model type, by library, and by
# hf-lwmm itself.
_QUERIES: Mapping[str, Sequence[Query]] = {
    "mit": ({"filter": "segformer"}, {"filter": "segmentation-models-pytorch"}),
    "resnet": ({"filter": "resnet"}, {"filter": "segmentation-models-pytorch"}, {"filter": "timm", "search": "resnet"}),
    "vgg": ({"filter": "timm", "search": "vgg"},),
    "vit": ({"filter": "vit"}, {"filter": "deit"}, {"filter": "timm", "search": "vit"}),
    "CLIP": ({"filter": "clip"}, {"filter": "open_clip"}, {"filter": "timm", "search": "clip"}),
    "SigLIP": ({"filter": "siglip"}, {"filter": "timm", "search": "siglip"}),
    "DeiT-3": ({"filter": "timm", "search": "deit3"},),
    "DINOv2": (
        {"filter": "dinov2"},
        {"filter": "dinov2_with_registers"},
        {"filter": "timm", "search": "dinov2"},
    ),
    "dinov3": ({"filter": "dinov3_vit"}, {"filter": "timm", "search": "dinov3"}),
    "beit": ({"filter": "beit"}, {"filter": "data2vec-vision"}, {"filter": "timm", "search": "beit"}),
    "swin": ({"filter": "swin"}, {"filter": "timm", "search": "swin"}),
    "swinv2": ({"filter": "swinv2"}, {"filter": "timm", "search": "swinv2"}),
    "convnext": ({"filter": "convnext"}, {"filter": "timm", "search": "convnext"}),
    "convnextv2": ({"filter": "convnextv2"}, {"filter": "timm", "search": "convnextv2"}),
    "mobilenetv3": ({"filter": "timm", "search": "mobilenetv3"}, {"filter": "segmentation-models-pytorch"}),
    "mbnet": (
        {"filter": "mobilenet_v2"},
        {"filter": "efficientnet"},
        {"filter": "segmentation-models-pytorch"},
        {"filter": "timm", "search": "efficientnet"},
        {"filter": "timm", "search": "mobilenetv2"},
    ),
    "efficientnetv2": ({"filter": "timm", "search": "efficientnetv2"},),
    "regnet": ({"filter": "regnet"}, {"filter": "timm", "search": "regnet"}),
    "hrnet": ({"filter": "timm", "search": "hrnet"},),
    "resnet_c": ({"filter": "timm", "search": "resnet"},),
    "resnet_d": ({"filter": "timm", "search": "resnet"},),
    "pvt": ({"filter": "pvt_v2"}, {"filter": "timm", "search": "pvt_v2"}),
}
_ALWAYS: Sequence[Query] = ({"filter": "lwmm"}, {"filter": "hf-lwmm"}, {"pipeline_tag": "image-segmentation"})
_AT_ONCE = 8  # repositories whose headers are read side by side


@dataclass(frozen=True)
class Candidate:
    """A model that can merge with what was asked for.

    `same_labels` is None if it or the wanted model names no classes; `rows` is the number of its classifier's classes.
    `shared` is the part of the weights that a merge would share: of the wanted model's, or, when a backbone was asked
    for, of its own.
    """

    repo: str
    sha: str
    architecture: str
    layout: str
    classes: tuple[str, ...] | None = field(repr=False)
    rows: int | None
    same_labels: bool | None
    licence: str | None
    downloads: int
    shared: float


@dataclass(frozen=True)
class Search:
    """The models that were found, most downloaded first.

    `looked_at` counts repositories; `unread` are those that could not be judged, and why.
    """

    wanted: str
    candidates: tuple[Candidate, ...]
    looked_at: int
    unread: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The search as plain data."""
        return asdict(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """The titles of a table of the candidates."""
        return ("model", "architecture", "layout", "classes", "licence", "downloads", "shared")

    def cells(self) -> list[tuple[str, ...]]:
        """Return a row of text under `columns` for each candidate."""
        return [
            (
                each.repo,
                each.architecture,
                each.layout,
                _classes_text(each),
                each.licence or "not stated",
                f"{each.downloads:,}",
                f"{each.shared:.1%}",
            )
            for each in self.candidates
        ]

    def __repr__(self) -> str:
        names = first_few([one_line(each.repo) for each in self.candidates]) or "none"
        return f"<Search: {names}; {len(self.candidates)} of {self.looked_at} can merge with {one_line(self.wanted)}>"

    def _repr_markdown_(self) -> str:
        found = f"**{len(self.candidates)} of {self.looked_at} models can merge with {plain(self.wanted)}**"
        return f"{found}\n\n{table(self.columns, self.cells())}\n"


def search(
    backbone: str | None = None,
    *,
    like: Ref | None = None,
    labels: str | Path | Sequence[str] | None = None,
    limit: int = 20,
    scan: int = 200,
    progress: Progress = silent,
) -> Search:
    """Find models of the Hub that can merge with a backbone, or with a model. No weights are downloaded.

    Args:
        backbone: a size such as `mit-b5` or `resnet-101`, or a family such as `mit`.
        like: in place of a backbone, a model that the others must be able to merge with.
        labels: the label set that classes are compared with; those of `like` if None.
        limit: the largest number of models to return.
        scan: the largest number of repositories to look at, those with the size in their name and many downloads first.

    Raises:
        PlanError: if neither or both are named, or no layout knows the backbone.
        HubError: if the Hub cannot be reached.
    """
    if (backbone is None) == (like is None):
        raise PlanError("Name a backbone, such as mit-b5, or a model (--like): one of the two.")
    named = read_label_set(labels) if labels is not None else None
    wanted = _like(like, named) if like is not None else _backbone(str(backbone), named)
    found: list[Candidate] = []
    unread: dict[str, str] = {}
    looked_at = 0
    listed = islice(_listed(wanted.queries, scan), scan)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while len(found) < limit and (batch := list(islice(listed, _AT_ONCE))):
            batch = [model for model in batch if _repo(model) != wanted.itself]
            for model, answer in zip(batch, pool.map(wanted.judge, batch), strict=True):
                looked_at += 1
                if isinstance(answer, str):
                    unread[_repo(model)] = answer
                elif answer is not None:
                    found.append(answer)
            progress("Reading headers", looked_at, scan)
    best = sorted(found, key=lambda candidate: (-candidate.downloads, candidate.repo))[:limit]
    return Search(wanted.title, tuple(best), looked_at, unread)


def _classes_text(candidate: Candidate) -> str:
    count = len(candidate.classes) if candidate.classes else candidate.rows
    says = {True: "the same", False: "others", None: "" if candidate.classes else "unnamed"}[candidate.same_labels]
    return ", ".join(part for part in (str(count) if count else "", says) if part)


@dataclass(frozen=True)
class _Wanted:
    """The goal of a search: the lists to look in, and the judge of a model by its headers."""

    title: str
    queries: Sequence[Sequence[Query]]
    labels: LabelSet | None
    share: Callable[[Checkpoint], float | None]
    itself: str | None = None

    def judge(self, model: ListedModel) -> Candidate | str | None:
        """Return the model if it can merge, a text if that cannot be found out, or None if it cannot merge."""
        try:
            checkpoint = open_checkpoint(model.source, headers_only=True)
            checkpoint.close()
            checkpoint = with_labels(checkpoint, [self.labels] if self.labels else [])
            shared = self.share(checkpoint)
        except HfLwmmError as error:
            return str(error).splitlines()[0]
        if shared is None:
            return None
        found, classes, same = checkpoint.slot_map, checkpoint.classes, None
        if classes and self.labels:
            same = [*map(normalise, classes)] == [*map(normalise, self.labels.classes)]
        return Candidate(
            repo=_repo(model),
            sha=str(model.source.sha),
            architecture=found.architecture,
            layout=found.layout,
            classes=classes,
            rows=classifier_rows(found),
            same_labels=same,
            licence=stated_licence(model.source),
            downloads=model.downloads,
            shared=shared,
        )


def _backbone(name: str, labels: LabelSet | None) -> _Wanted:
    """Models with a backbone of this size, or of this family."""
    known = {_plain(title): (each, kin) for each in _backbones() for title, kin in _names(each)}
    if _plain(name) not in known:
        titles = ", ".join(title for each in _backbones() for title in (*_titles(each), *_kin(each)))
        raise PlanError(f"--backbone {name} is not one of {titles}.")
    component, kin = known[_plain(name)]
    family = _plain(name) in {_plain(each) for each in (component.title, *_kin(component))}

    def share(checkpoint: Checkpoint) -> float | None:
        found = checkpoint.slot_map
        fits = found.kin == kin if family else _plain(found.architecture.split(", ")[0]) == _plain(name)
        if found.backbone is not component or not fits:
            return None
        own = whole = 0
        for slot, atom in found.slots.items():
            count = math.prod(atom.shape)
            place = place_of(slot)
            whole += count
            own += count if place is not None and place[0] is component else 0
        return own / whole if whole else None

    return _Wanted(name, _queries(kin or component.name, _size(name)), labels, share)


def _like(model: Ref, labels: LabelSet | None) -> _Wanted:
    """Models that a merge with this one, as the anchor, takes."""
    checkpoint = open_checkpoint(hub.resolve(parse_ref(model)), headers_only=True)
    checkpoint.close()
    checkpoint = with_labels(checkpoint, [labels] if labels else [])
    if labels is None and checkpoint.classes:
        labels = read_label_set(checkpoint.classes)
    component, architecture = checkpoint.slot_map.backbone, checkpoint.slot_map.architecture.split(", ")[0]

    def share(other: Checkpoint) -> float | None:
        try:
            alignment = align([checkpoint, other], 0)
        except AlignmentError:
            return None
        return alignment.shared_parameters / alignment.anchor_parameters

    tags = (checkpoint.config.get("model_type"), checkpoint.source.card.get("pipeline_tag"))
    more = [{"filter": str(tag)} for tag in tags if tag]
    family = checkpoint.slot_map.kin or (component.name if component else "")
    queries = _queries(family, _size(architecture), more)
    return _Wanted(checkpoint.label, queries, labels, share, checkpoint.source.ref.repo_id)


def _queries(family: str, size: str, more: Sequence[Query] = ()) -> Sequence[Sequence[Query]]:
    """First models with the size in their name, then all of the family."""
    lists = [*_QUERIES.get(family, ()), *more, *_ALWAYS]
    named = [{**query, "search": size} for query in lists if "search" not in query] if size else []
    return (named, lists) if named else (lists,)


def _size(backbone: str) -> str:
    """The part of a backbone's name that repositories are likely to have in theirs: b5 of MiT-B5."""
    found = re.search(r"[- _]([a-z]?\d+)$", backbone.lower())
    return found[1] if found else ""


def _listed(queries: Sequence[Sequence[Query]], scan: int) -> Iterator[ListedModel]:
    """Models in the Hub's lists, each once; those of an earlier group of lists first, then by downloads."""
    seen: set[str] = set()
    for group in queries:
        listed = (model for query in group for model in hub.list_models(query, scan))
        fresh = {_repo(model): model for model in listed if _repo(model) not in seen}
        seen |= fresh.keys()
        yield from sorted(fresh.values(), key=lambda model: (-model.downloads, _repo(model)))


def _repo(model: ListedModel) -> str:
    return str(model.source.ref.repo_id)


def _backbones() -> list[Component]:
    return [component for component in COMPONENTS.values() if component.kind == "backbone"]


def _titles(component: Component) -> tuple[str, ...]:
    return (component.title, *dict.fromkeys(variant.name for variant in component.variants))


def _names(component: Component) -> Iterator[tuple[str, str]]:
    """Yield what may be asked for, `vit-b`, `dinov2` and `dinov2-vit-b`, with the kin that it means."""
    yield from ((title, "") for title in _titles(component))
    for kin in _kin(component):
        yield kin, kin
        yield from ((f"{kin} {title}", kin) for title in _titles(component))


def _kin(component: Component) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kin.title for kin in component.kin))


def _plain(name: str) -> str:
    """`mit_b5`, `MiT-B5` and `mit b5` are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
