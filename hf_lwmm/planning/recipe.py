"""hf_lwmm.yaml: the recipe that travels with a merged model and makes the same bytes again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import yaml

from hf_lwmm._version import __version__
from hf_lwmm.engine.streaming import DEFAULT_SHARD_SIZE
from hf_lwmm.errors import PlanError
from hf_lwmm.planning.plan import Knobs, MergePlan
from hf_lwmm.planning.provenance import ImageFacts, Tuning, read_image_facts, read_tuning

FILE_NAME = "hf_lwmm.yaml"


@dataclass(frozen=True)
class Recipe:
    """What to merge and how. `sha256` are hashes of each model's weight files, `output` of the merged ones.

    A local model of a finished merge is named by its last part alone and listed in `local`. `base` and `statistics`
    are references that the method asks for; their hashes follow those of the models. `tuning` has the weights that the
    method decided on images, `recalibration` the images that BatchNorm's statistics were estimated on.
    """

    models: tuple[str, ...]
    anchor: str
    knobs: Knobs = field(default_factory=Knobs)
    version: str = __version__
    local: tuple[str, ...] = ()
    sha256: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    output: Mapping[str, str] = field(default_factory=dict)
    max_shard_size: int = DEFAULT_SHARD_SIZE
    base: str | None = None
    statistics: tuple[str, ...] = ()
    tuning: Tuning | None = field(default=None, repr=False)
    recalibration: ImageFacts | None = None

    @property
    def bn_images(self) -> dict[str, Any]:
        """`bn_data` and `bn_options` of `merge` for the same images; none for a folder's, whose place is unknown."""
        seen = self.recalibration
        return {} if seen is None or seen.local else {"bn_data": seen.ref, "bn_options": seen.reading}

    def to_yaml(self) -> str:
        """The file's text; equal recipes give equal texts."""
        entries = []
        for index, ref in enumerate((*self.models, *([self.base] if self.base else []), *self.statistics)):
            entry: dict[str, Any] = {"local" if ref in self.local else "model": ref}
            if self.sha256:
                entry["sha256"] = dict(sorted(self.sha256[index].items()))
            entries.append(entry)
        models, rest = entries[: len(self.models)], entries[len(self.models) :]
        knobs = _plain(asdict(self.knobs))
        content = {
            "hf_lwmm": self.version,
            "method": knobs.pop("method"),
            "models": models,
            "anchor": self.anchor,
            **({"base": rest.pop(0)} if self.base else {}),
            **({"statistics": rest} if rest else {}),
            "knobs": knobs,
            **({"tuning": self.tuning.to_dict()} if self.tuning else {}),
            **({"recalibration": self.recalibration.to_dict()} if self.recalibration else {}),
            "max_shard_size": self.max_shard_size,
            "output": dict(sorted(self.output.items())),
        }
        return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def recipe_of(
    plan: MergePlan,
    sha256: tuple[Mapping[str, str], ...],
    output: Mapping[str, str],
    max_shard_size: int,
    recalibration: ImageFacts | None = None,
) -> Recipe:
    """The recipe of a plan that was carried out."""
    sources = [checkpoint.source for checkpoint in plan.sources]
    every = tuple(str(s.ref.at(s.sha)) if s.sha else s.ref.shown for s in sources)
    names, rest = every[: len(plan.checkpoints)], every[len(plan.checkpoints) :]
    return Recipe(
        models=names,
        anchor=names[plan.alignment.anchor],
        knobs=plan.knobs,
        local=tuple(name for name, source in zip(every, sources, strict=True) if source.sha is None),
        sha256=sha256,
        output=output,
        max_shard_size=max_shard_size,
        base=rest[0] if plan.base else None,
        statistics=rest[1:] if plan.base else rest,
        tuning=plan.tuning,
        recalibration=recalibration,
    )


def read_recipe(text: str, name: str = FILE_NAME) -> Recipe:
    """Read a recipe, written by a merge or by hand (`models` may then be plain references).

    Raises:
        PlanError: if it is no recipe, or asks for something unknown.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("models"), list):
        raise PlanError(f"{name}: not a recipe; it needs at least a list of `models`.")
    base = [content["base"]] if content.get("base") else []
    statistics = content.get("statistics") or []
    refs, local, hashes = [], [], []
    for entry in (*content["models"], *base, *statistics):
        fields_of: dict[str, Any] = {"model": entry} if not isinstance(entry, dict) else entry
        ref = fields_of.get("model") or fields_of.get("local")
        if not isinstance(ref, str):
            raise PlanError(f"{name}: a model must be a reference such as org/name@revision, not {entry!r}.")
        refs.append(ref)
        local += [ref] if "local" in fields_of else []
        hashes.append(dict(fields_of.get("sha256") or {}))
    models, rest = refs[: len(content["models"])], refs[len(content["models"]) :]
    knobs, known = content.get("knobs") or {}, {f.name for f in fields(Knobs)}
    if not isinstance(knobs, dict) or (unknown := set(knobs) - known):
        what = ", ".join(map(str, sorted(unknown))) if isinstance(knobs, dict) else repr(knobs)
        raise PlanError(f"{name}: unknown knobs: {what}. Known: {', '.join(sorted(known))}.")
    try:
        read = Knobs(**{**knobs, "method": content.get("method", "layerwise")})
    except TypeError as error:
        raise PlanError(f"{name}: {error}") from None
    if not models:
        raise PlanError(f"{name}: lists no models.")
    return Recipe(
        models=tuple(models),
        anchor=str(content.get("anchor") or models[0]),
        knobs=read,
        version=str(content.get("hf_lwmm", __version__)),
        local=tuple(local),
        sha256=tuple(hashes),
        output=dict(content.get("output") or {}),
        max_shard_size=int(content.get("max_shard_size") or DEFAULT_SHARD_SIZE),
        base=rest[0] if base else None,
        statistics=tuple(rest[len(base) :]),
        tuning=read_tuning(content["tuning"], f"{name}, tuning") if "tuning" in content else None,
        recalibration=(
            read_image_facts(content["recalibration"], f"{name}, recalibration") if "recalibration" in content else None
        ),
    )
