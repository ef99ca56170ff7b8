"""Read recipes of hf-lwmm 0.1.0, which have no schema, in the words of the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hf_lwmm.errors import PlanError
from hf_lwmm.files.documents import shortened
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.planning.scoring import ScoringOptions

OLDEST = 2  # the first schema that recipes name

# What 0.1.0 called it, and what it is called now.
_FIRST_KNOBS = {"weights": "branch", "bn": "bn_stats"}
_FIRST_KEYS = {"statistics": "measurements", "recalibration": "bn_images"}


def is_first_schema(content: Mapping[str, Any]) -> bool:
    """Return True for the content of a recipe of hf-lwmm 0.1.0, which has no `schema`."""
    knobs = content.get("knobs")
    old = {*_FIRST_KNOBS, "options", "start", "alpha", "ramp"}
    return "schema" not in content and (
        bool(content.keys() & _FIRST_KEYS.keys())
        or str(content.get("hf_lwmm", "")).startswith("0.1.")
        or (isinstance(knobs, Mapping) and bool(knobs.keys() & old))
    )


def from_first_schema(content: Mapping[str, Any], name: str, check_types: Callable[..., None]) -> dict[str, Any]:
    """Return the content of a recipe of hf-lwmm 0.1.0 in the words of schema 2.

    Args:
        content: the content.
        name: what messages call the recipe.
        check_types: refuses entries of other types than a recipe's.

    Raises:
        PlanError: if an entry is of another type.
    """
    found = {"schema": OLDEST, **{_FIRST_KEYS.get(key, key): value for key, value in content.items()}}
    check_types(found, name)
    knobs = dict(found.get("knobs") or {})
    options = knobs.pop("options", None) or {}
    if not isinstance(options, Mapping):
        raise PlanError(f"{name}, knobs, options: must hold names and values, not {shortened(options)}.")
    method = found.get("method", Layerwise.name)
    layerwise = {key: knobs.pop(key) for key in ("start", "alpha", "ramp") if key in knobs}
    if method == Layerwise.name or "hf_lwmm" not in content:  # 0.1.0 wrote them beside any method
        options = {**layerwise, **options}
    found["method"] = {"name": method, **options}
    found["knobs"] = {_FIRST_KNOBS.get(key, key): value for key, value in knobs.items()}
    systems: list[str] = []
    if found.get("bn_images"):
        found["bn_images"] = _first_images(found["bn_images"], systems)
    if isinstance(tuning := found.get("tuning"), Mapping):
        rest = {key: value for key, value in tuning.items() if key in ("notes", "rows")}
        images = {key: value for key, value in tuning.items() if key not in rest}
        known = [each.name for each in fields(ScoringOptions)]
        scoring = {key: value for key, value in _first_options(images).items() if key in known}
        found["tuning"] = {**rest, "scoring": scoring}
        if images:
            found["tuning"]["images"] = _first_images(images, systems)
    if systems:
        found["system"] = systems[0]
    return found


def _first_options(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that the images of a recipe of 0.1.0 were looked at with."""
    options = entry.get("options")
    return options if isinstance(options, Mapping) else {}


def _first_images(entry: Any, systems: list[str]) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    options = _first_options(entry)
    if system := options.get("system"):
        systems.append(str(system))
    data = f"{entry.get('dataset')}@{entry['commit']}" if entry.get("commit") else entry.get("dataset")
    where: dict[str, Any] = {"local": entry["local"]} if "local" in entry else {"data": data}
    used = {"split": entry.get("split"), "limit": entry.get("images") or None}
    known: Sequence[str] = ("config", "image_column", "label_column", "ids")
    return {**where, **used, **{key: value for key, value in options.items() if key in known}}
