"""Spell a merge as a command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.options import Options, declarations, option_name
from hf_lwmm.planning.images import ImageProvenance, ImageSource
from hf_lwmm.planning.recipe import Recipe
from hf_lwmm.planning.scoring import ScoringOptions


def merge_command(recipe: Recipe) -> str:
    """Return the command line that makes the merge of a recipe."""
    parts = ["hf-lwmm", "merge", *recipe.models, "--anchor", recipe.anchor]
    method = recipe.knobs.method
    if method.name != Layerwise.name:
        parts += ["--method", method.name]
    for name, value in method.changed().items():
        parts += [method.flag(name), _text(value)] if method.own_flags else ["--option", f"{name}={_text(value)}"]
    parts += option_arguments(recipe.knobs)
    parts += ["--base", recipe.base] if recipe.base else []
    for measurement in recipe.measurements:
        parts += ["--measurements", measurement]
    if recipe.tuning and recipe.tuning.images:
        parts += _image_arguments(recipe.tuning.images, "tune-") + option_arguments(recipe.tuning.scoring)
    if recipe.bn_images:
        parts += _image_arguments(recipe.bn_images, "bn-")
    parts += ["--system", recipe.system] if recipe.system else []
    parts += option_arguments(recipe.files)
    return shlex.join(parts)


def sweep_command(models: Sequence[str], images: ImageSource, evaluation: ScoringOptions) -> str:
    """Return the command line that tries other merges of models on the same images, with scores of the same kind."""
    options = ScoringOptions(**{name: getattr(evaluation, name) for name in declarations(ScoringOptions)})
    return shlex.join(["hf-lwmm", "sweep", *models, *option_arguments(images), *option_arguments(options)])


def option_arguments(options: Options, prefix: str = "") -> list[str]:
    """Return the arguments that make options what they are: those that differ from their defaults."""
    parts = []
    changed = options.changed()
    for name, declared in declarations(type(options)).items():
        if name not in changed:
            continue
        flag, value = option_name(name, declared, prefix), changed[name]
        if value is True:
            parts.append(flag)
        elif isinstance(value, tuple) and not declared.commas:
            parts += [part for each in value for part in (flag, _text(each))]
        else:
            parts += [flag, _text(value)]
    return parts


def _image_arguments(images: ImageProvenance, prefix: str) -> list[str]:
    source: ImageSource = images.source
    return option_arguments(source, prefix)


def _text(value: Any) -> str:
    """A value as the command line reads it; class names make a JSON list where commas between them would not do."""
    if not isinstance(value, tuple):
        return str(value).lower() if value is None or isinstance(value, bool) else str(value)
    texts = list(map(str, value))
    unclear = isinstance(value[0], str) and (len(texts) == 1 or any("," in text for text in texts))
    return json.dumps(texts, ensure_ascii=False) if unclear else ",".join(texts)
