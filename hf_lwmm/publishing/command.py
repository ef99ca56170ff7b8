"""Spell a merge as a command line."""

from __future__ import annotations

from dataclasses import replace

from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.options import argument, option_arguments
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.recipes.recipe import Recipe
from hf_lwmm.text import operand, shell_line


def merge_command(recipe: Recipe) -> str:
    """Return the command line that makes the merge of a recipe."""
    parts = ["hf-lwmm", "merge", *map(operand, recipe.models), "--anchor", operand(recipe.anchor)]
    method = recipe.knobs.method
    if method.name != Layerwise.name:
        parts += ["--method", method.name]
    for name, value in method.changed().items():
        parts += [method.flag(name), argument(value)] if method.own_flags else ["--option", f"{name}={argument(value)}"]
    parts += option_arguments(recipe.knobs)
    parts += ["--base", operand(recipe.base)] if recipe.base else []
    for measurement in recipe.measurements:
        parts += ["--measurements", operand(measurement)]
    if recipe.tuning and recipe.tuning.images:
        parts += _image_arguments(recipe.tuning.images, "tune-") + option_arguments(recipe.tuning.scoring)
    if recipe.bn_images:
        parts += _image_arguments(recipe.bn_images, "bn-")
    parts += ["--system", recipe.system] if recipe.system else []
    parts += option_arguments(recipe.files)
    return shell_line(parts)


def _image_arguments(images: ImageProvenance, prefix: str) -> list[str]:
    return option_arguments(replace(images, data=images.ref), prefix)
