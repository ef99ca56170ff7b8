"""hf_lwmm.yaml: the recipe that travels with a merged model and makes the same bytes again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import yaml

from hf_lwmm._version import __version__
from hf_lwmm.engine import DEFAULT_SHARD_SIZE
from hf_lwmm.errors import PlanError
from hf_lwmm.planning import Knobs, MergePlan

FILE_NAME = "hf_lwmm.yaml"


@dataclass(frozen=True)
class Recipe:
    """What to merge and how. `sha256` are hashes of each model's weight files, `output` of the merged ones.

    A local model of a finished merge is named by its last part alone and listed in `local`.
    """

    models: tuple[str, ...]
    anchor: str
    knobs: Knobs = field(default_factory=Knobs)
    version: str = __version__
    local: tuple[str, ...] = ()
    sha256: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    output: Mapping[str, str] = field(default_factory=dict)
    max_shard_size: int = DEFAULT_SHARD_SIZE

    def to_yaml(self) -> str:
        """The file's text; equal recipes give equal texts."""
        models = []
        for index, model in enumerate(self.models):
            entry: dict[str, Any] = {"local" if model in self.local else "model": model}
            if self.sha256:
                entry["sha256"] = dict(sorted(self.sha256[index].items()))
            models.append(entry)
        content = {
            "hf_lwmm": self.version,
            "method": "layerwise",
            "models": models,
            "anchor": self.anchor,
            "knobs": _plain(asdict(self.knobs)),
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
    plan: MergePlan, sha256: tuple[Mapping[str, str], ...], output: Mapping[str, str], max_shard_size: int
) -> Recipe:
    """The recipe of a plan that was carried out."""
    sources = [checkpoint.source for checkpoint in plan.checkpoints]
    names = tuple(str(s.ref.at(s.sha)) if s.sha else s.ref.shown for s in sources)
    return Recipe(
        models=names,
        anchor=names[plan.alignment.anchor],
        knobs=plan.knobs,
        local=tuple(name for name, source in zip(names, sources, strict=True) if source.sha is None),
        sha256=sha256,
        output=output,
        max_shard_size=max_shard_size,
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
    if content.get("method", "layerwise") != "layerwise":
        raise PlanError(f"{name}: unknown method {content['method']!r}; this version knows layerwise.")
    models, local, hashes = [], [], []
    for entry in content["models"]:
        fields_of: dict[str, Any] = {"model": entry} if not isinstance(entry, dict) else entry
        model = fields_of.get("model") or fields_of.get("local")
        if not isinstance(model, str):
            raise PlanError(f"{name}: a model must be a reference such as org/name@revision, not {entry!r}.")
        models.append(model)
        local += [model] if "local" in fields_of else []
        hashes.append(dict(fields_of.get("sha256") or {}))
    knobs, known = content.get("knobs") or {}, {f.name for f in fields(Knobs)}
    if not isinstance(knobs, dict) or (unknown := set(knobs) - known):
        what = ", ".join(map(str, sorted(unknown))) if isinstance(knobs, dict) else repr(knobs)
        raise PlanError(f"{name}: unknown knobs: {what}. Known: {', '.join(sorted(known))}.")
    try:
        read = Knobs(**knobs)
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
    )
