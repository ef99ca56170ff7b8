"""hf_lwmm.yaml: the recipe that travels with a merged model and makes the same bytes again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.companions import RECIPE
from hf_lwmm.checkpoints.weight_files import is_weights
from hf_lwmm.errors import DocumentError, PlanError, RefError
from hf_lwmm.files.documents import as_mapping, is_texts, parse_yaml, read_text, shortened, to_yaml
from hf_lwmm.hub.refs import check_inside
from hf_lwmm.labels import check_label_set
from hf_lwmm.methods import make_method
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.options import check_names
from hf_lwmm.planning.file_options import FileOptions
from hf_lwmm.planning.images import ImageProvenance, read_image_provenance
from hf_lwmm.planning.inputs import MergeInputs, NetworkOptions
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.provenance import Tuning, read_tuning
from hf_lwmm.planning.tensor_order import TensorOrder, read_order
from hf_lwmm.recipes.first_schema import OLDEST, from_first_schema, is_first_schema

FILE_NAME = RECIPE
CARRIED = "merge.yaml"  # of a merge that was converted: by another name, since most hashes are of other files
SCHEMA = 3
_FIRST_FORMAT = "safetensors"  # of recipes of merges that do not say
_NUMBERED = re.compile(r"(.+) \(\d+\)", re.DOTALL)  # as local models of one name are told apart


@dataclass(frozen=True)
class Recipe:
    """A merge as a file records it.

    `sha256` holds hashes of each model's weight files, and `output` those of the merged ones. Of files in `recorded`
    not all bytes were read, and the hash is the one that the Hub records. `beside` holds the hashes of what else
    the merge has of the anchor: configuration, image processor and code; None in recipes that do not say.

    A local model of a finished merge is named by its last part alone, and a number if several have the same, and listed
    in `local`. The hashes of `base` and `measurements` follow those of the models. BatchNorm's statistics were
    estimated on `bn_images`, with DeepLabV2 networks run as those of the code base `system`.

    `converted` is None beside the merge itself. Beside a merge that `convert` wrote it holds the hashes of its files,
    which are others than those of `output` and `beside`; none if it was converted before they were recorded.
    """

    models: tuple[str, ...]
    anchor: str
    knobs: Knobs = field(default=Knobs())
    base: str | None = None
    measurements: tuple[str, ...] = ()
    tuning: Tuning | None = field(default=None, repr=False)
    order: TensorOrder | None = field(default=None, repr=False)
    bn_images: ImageProvenance | None = None
    system: str | None = None
    files: FileOptions = field(default=FileOptions())
    local: tuple[str, ...] = ()
    sha256: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    recorded: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    output: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] | None = None
    converted: Mapping[str, str] | None = None
    version: str = __version__

    @property
    def file_name(self) -> str:
        """Its name where it lies beside weights."""
        return FILE_NAME if self.converted is None else CARRIED

    @property
    def references(self) -> tuple[str, ...]:
        """All models that the merge reads, with base and measurements, in the order of `sha256`."""
        return (*self.models, *([self.base] if self.base else []), *self.measurements)

    @property
    def weights(self) -> Mapping[str, str]:
        """The hashes of the files of weights that it lies beside, with their index."""
        if self.converted is None:
            return self.output
        return {name: digest for name, digest in self.converted.items() if is_weights(name)}

    @property
    def companions(self) -> Mapping[str, str] | None:
        """The hashes of what is loaded with these weights; None if it does not say."""
        if self.converted is None:
            return self.beside
        return {name: digest for name, digest in self.converted.items() if not is_weights(name)}

    @property
    def files_beside(self) -> Mapping[str, str]:
        """The hashes of all files that it lies beside, as far as it records them."""
        return {**self.weights, **(self.companions or {})}

    @property
    def inputs(self) -> MergeInputs:
        """The inputs of the merge besides its models.

        Images of a local folder are left out, since its place is unknown.
        """
        images = self.bn_images if self.bn_images is not None and not self.bn_images.local else None
        runs = images is not None or self.tuning is not None
        return MergeInputs(
            base=self.base,
            measurements=self.measurements,
            tuning=self.tuning,
            order=self.order,
            bn_images=images.source if images is not None else None,
            network=NetworkOptions(system=self.system if runs or self.files.format == "transformers" else None),
        )

    def check_told_apart(self, name: str) -> None:
        """Refuse to look by one name for several local models; `name` is what messages call the recipe.

        Raises:
            PlanError: if local models had one name, which is numbered now, or, in older recipes, have it still.
        """
        hashes: dict[str, list[str]] = {}
        for ref, sha256 in zip(self.models, self.sha256, strict=False):
            numbered = _NUMBERED.fullmatch(ref) if ref in self.local and not Path(ref).exists() else None
            own = sorted(sha256.values())
            if hashes.setdefault(ref, own) != own or (numbered and numbered[1] in hashes):
                raise PlanError(
                    f"{name}: has several local models named {numbered[1] if numbered else ref}. Name all models, in "
                    f"its order, and the anchor: hf-lwmm merge FIRST SECOND --anchor FIRST --recipe {name}"
                )

    def to_yaml(self) -> str:
        """Return the file's text; equal recipes give equal texts."""
        entries = []
        for index, ref in enumerate(self.references):
            entry: dict[str, Any] = {"local" if ref in self.local else "model": ref}
            if self.sha256:
                entry["sha256"] = dict(sorted(self.sha256[index].items()))
            if self.recorded and self.recorded[index]:
                entry["recorded"] = list(self.recorded[index])
            entries.append(entry)
        models, rest = entries[: len(self.models)], entries[len(self.models) :]
        knobs = self.knobs.to_dict()
        content = {
            "schema": OLDEST if self.order == TensorOrder() else SCHEMA,
            "hf_lwmm": self.version,
            "models": models,
            "anchor": self.anchor,
            "method": knobs.pop("method"),
            "knobs": knobs,
            **({"base": rest.pop(0)} if self.base else {}),
            **({"measurements": rest} if rest else {}),
            **({"tuning": self.tuning.to_dict()} if self.tuning else {}),
            **({"order": list(self.order.entries)} if self.order and self.order.entries else {}),
            **({"bn_images": self.bn_images.to_dict()} if self.bn_images else {}),
            **({"system": self.system} if self.system else {}),
            **({"format": self.files.format} if self.files.format != _FIRST_FORMAT else {}),
            "max_shard_size": self.files.shard_bytes,
            "output": dict(sorted(self.output.items())),
            **({"beside": dict(sorted(self.beside.items()))} if self.beside is not None else {}),
            **({"converted": dict(sorted(self.converted.items()))} if self.converted is not None else {}),
        }
        return to_yaml(content)


def recipe_of(
    plan: MergePlan,
    sha256: tuple[Mapping[str, str], ...],
    output: Mapping[str, str],
    *,
    beside: Mapping[str, str] | None = None,
    recorded: tuple[tuple[str, ...], ...] = (),
    files: FileOptions = FileOptions(),
    bn_images: ImageProvenance | None = None,
    system: str | None = None,
) -> Recipe:
    """Return the recipe of a plan that was carried out."""
    sources = [checkpoint.source for checkpoint in plan.sources]
    shown = [str(source.exact) if source.sha else source.name or source.ref.shown for source in sources]
    every = _told_apart(
        shown, [source.ref.path and (source.ref.path.resolve(), source.ref.files) for source in sources]
    )
    names, rest = every[: len(plan.checkpoints)], every[len(plan.checkpoints) :]
    return Recipe(
        models=names,
        anchor=names[plan.alignment.anchor],
        knobs=replace(plan.knobs, labels=plan.used_labels),
        base=rest[0] if plan.base else None,
        measurements=rest[1:] if plan.base else rest,
        tuning=plan.tuning,
        order=plan.order,
        bn_images=bn_images,
        system=system,
        files=files,
        local=tuple(name for name, source in zip(every, sources, strict=True) if source.sha is None),
        sha256=sha256,
        recorded=recorded,
        output=output,
        beside=beside,
    )


def _told_apart(names: Sequence[str], places: Sequence[object]) -> tuple[str, ...]:
    """The names, numbered where several places have one: `best`, `best (2)`."""
    found: dict[str, list[object]] = {}
    numbered = []
    for name, place in zip(names, places, strict=True):
        known = found.setdefault(name, [])
        if place not in known:
            known.append(place)
        number = known.index(place) + 1
        numbered.append(name if number == 1 else f"{name} ({number})")
    return tuple(numbered)


def load_recipe(path: str | Path, name: str = "") -> Recipe:
    """Read a recipe file, or that of the folder of a merge, converted or not.

    `name` is what messages call it, its path if empty.

    Raises:
        PlanError: if it cannot be read, or is no recipe.
    """
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112  (pathlib's fails for long texts)
        carried = (path / CARRIED).is_file() and not (path / FILE_NAME).exists()
        path = path / (CARRIED if carried else FILE_NAME)
    try:
        text = read_text(path, name or str(path))
    except DocumentError as error:
        raise PlanError(str(error)) from None
    return read_recipe(text, name or str(path))


_KEYS = (
    *("schema", "hf_lwmm", "models", "anchor", "method", "knobs", "base", "measurements", "tuning", "order"),
    *("bn_images", "system", "format", "max_shard_size", "output", "beside", "converted"),
)


def read_recipe(text: str, name: str = FILE_NAME) -> Recipe:
    """Read the text of a recipe, written by a merge or by hand (`models` may then be plain references).

    Recipes of hf-lwmm 0.1.0, which have no `schema`, are read too.

    Raises:
        PlanError: if it is no recipe, has an unknown name or an unfit value, or a newer schema.
    """
    try:
        content = as_mapping(parse_yaml(text, name), name)
    except DocumentError as error:
        raise PlanError(f"{error} A recipe needs at least a list of `models`.") from None
    if not isinstance(content.get("models"), list):
        raise PlanError(f"{name}: not a recipe; it needs at least a list of `models`.")
    _check_schema(content.get("schema", SCHEMA), name)
    if is_first_schema(content):
        content = from_first_schema(content, name, _check_types)
    check_names(content, _KEYS, name)
    _check_types(content, name)
    models = [_entry(entry, name) for entry in content["models"]]
    if not models:
        raise PlanError(f"{name}: lists no models.")
    base = _entry(content["base"], name) if content.get("base") is not None else None
    measurements = [_entry(entry, name) for entry in content.get("measurements") or []]
    every = [*models, *([base] if base else []), *measurements]
    return Recipe(
        models=tuple(entry.ref for entry in models),
        anchor=content.get("anchor") or models[0].ref,
        knobs=_knobs(content, name),
        base=base.ref if base else None,
        measurements=tuple(entry.ref for entry in measurements),
        tuning=read_tuning(content["tuning"], f"{name}, tuning") if content.get("tuning") is not None else None,
        order=_order(content, name),
        bn_images=(
            read_image_provenance(content["bn_images"], f"{name}, bn_images")
            if content.get("bn_images") is not None
            else None
        ),
        system=NetworkOptions.read({"system": content.get("system")}, name).system,
        files=_files(content, name),
        local=tuple(entry.ref for entry in every if entry.local),
        sha256=tuple(entry.sha256 for entry in every),
        recorded=tuple(entry.recorded for entry in every),
        output=_hashes(content.get("output"), f"{name}, output"),
        beside=_hashes(content["beside"], f"{name}, beside") if content.get("beside") is not None else None,
        converted=(
            _hashes(content["converted"], f"{name}, converted") if content.get("converted") is not None else None
        ),
        version=content.get("hf_lwmm") or __version__,
    )


# The types of a recipe's entries; options check those that are not named here.
_TYPES: Mapping[str, tuple[type, str]] = {
    "hf_lwmm": (str, "be a version in quotes"),
    "anchor": (str, "be a reference such as org/name@revision"),
    "method": (str | Mapping, "be a name, or a name with options"),  # type: ignore[dict-item]
    "knobs": (Mapping, "hold names and values"),
    "measurements": (list, "be a list"),
}


def _check_types(content: Mapping[str, Any], name: str) -> None:
    for key, (kind, wanted) in _TYPES.items():
        if content.get(key) is not None and not isinstance(content[key], kind):
            raise PlanError(f"{name}, {key}: must {wanted}, not {shortened(content[key])}.")


def _order(content: Mapping[str, Any], name: str) -> TensorOrder | None:
    if content.get("order") is not None:
        return read_order(content["order"], f"{name}, order")
    return TensorOrder() if content.get("schema", SCHEMA) < SCHEMA else None


def _check_schema(schema: Any, name: str) -> None:
    if type(schema) is int and OLDEST <= schema <= SCHEMA:
        return
    if type(schema) is int and schema > SCHEMA:
        raise PlanError(
            f"{name}: has the schema {schema}; this version of hf-lwmm reads up to {SCHEMA}. Upgrade hf-lwmm."
        )
    raise PlanError(f"{name}: has the schema {shortened(schema)}; write `schema: {SCHEMA}`, or leave it out.")


@dataclass(frozen=True)
class _Entry:
    """A model of a recipe."""

    ref: str
    local: bool
    sha256: Mapping[str, str]
    recorded: tuple[str, ...]


def _entry(entry: Any, name: str) -> _Entry:
    content: Mapping[str, Any] = {"model": entry} if isinstance(entry, str) else entry
    ref = (content.get("model") or content.get("local")) if isinstance(content, Mapping) else None
    if not isinstance(ref, str):
        raise PlanError(f"{name}: a model must be a reference such as org/name@revision, not {shortened(entry)}.")
    check_names(content, ("model", "local", "sha256", "recorded"), f"{name}, {ref}")
    recorded = content.get("recorded") or ()
    if not is_texts(recorded):
        raise PlanError(f"{name}, {ref}, recorded: must be a list of file names, not {shortened(recorded)}.")
    hashes = _hashes(content.get("sha256"), f"{name}, {ref}")
    return _Entry(ref, "local" in content, hashes, tuple(recorded))


def _hashes(content: Any, where: str) -> dict[str, str]:
    if content is None:
        return {}
    if not isinstance(content, Mapping) or not is_texts([*content, *content.values()]):
        raise PlanError(f"{where}: must hold file names and hashes, not {shortened(content)}.")
    for file in content:
        try:
            check_inside(file, where)
        except RefError as error:
            raise PlanError(str(error)) from None
    return dict(content)


def _files(content: Mapping[str, Any], name: str) -> FileOptions:
    written = _FIRST_FORMAT if content.get("output") else FileOptions.format  # else the recipe is written by hand
    given = {key: content[key] for key in ("format", "max_shard_size") if content.get(key) is not None}
    return FileOptions.read({"format": written, **given}, name)


def _knobs(content: Mapping[str, Any], name: str) -> Knobs:
    stated = content.get("method") or Layerwise.name
    options = dict(stated) if isinstance(stated, Mapping) else {"name": stated}
    knobs = content.get("knobs") or {}
    if "method" in knobs:
        raise PlanError(f"{name}, knobs: `method` stands beside `knobs`, not in them.")
    chosen = options.pop("name", Layerwise.name)
    if not is_texts([chosen, *options]):
        raise PlanError(f"{name}, method: must be a name, or a name with options, not {shortened(stated)}.")
    try:
        method = make_method(chosen, options)
    except PlanError as error:
        raise PlanError(f"{name}, method: {error}") from None
    check_names(knobs, [each.name for each in fields(Knobs) if each.name != "method"], f"{name}, knobs")
    if knobs.get("bn_stats") == "recalibrate":  # a recipe leaves nothing to be decided, and older ones estimated all
        knobs = {**knobs, "bn_mix": 1.0 if knobs.get("bn_mix") is None else knobs["bn_mix"]}
    labels = knobs.get("labels")
    for one in labels if isinstance(labels, list) else ():
        check_label_set(one, f"{name}, knobs, labels")
    return Knobs.read({**knobs, "method": method}, f"{name}, knobs")
