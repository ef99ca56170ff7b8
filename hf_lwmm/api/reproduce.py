"""Make a merge again from its recipe, and compare the bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.api.merge import merge
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import PlanError
from hf_lwmm.hub import Ref, parse_ref
from hf_lwmm.planning.recipe import FILE_NAME, load_recipe
from hf_lwmm.progress import Progress, silent


@dataclass(frozen=True)
class Reproduction:
    """The outcome of merging again: `same` is True if the bytes are the recorded ones.

    The mappings go from file name to SHA-256.
    """

    repo: str
    same: bool
    recorded: Mapping[str, str]
    stored: Mapping[str, str]
    merged: Mapping[str, str]


def reproduce(repo: Ref, *, progress: Progress = silent) -> Reproduction:
    """Merge again what a merged repository records, at the same commits, and compare the bytes.

    Layer weights that were decided on images are taken from the recipe. BatchNorm's statistics that were estimated on
    images are estimated again, with floating-point sums that may end in other bits on another machine.

    Raises:
        PlanError: if it has no recipe, or a parent was a local file.
        HubError: if a parent is gone.
    """
    source = hub.resolve(parse_ref(repo))
    if FILE_NAME not in source.files:
        raise PlanError(f"{source.label}: has no {FILE_NAME}, so it was not made by hf-lwmm.")
    recipe = load_recipe(hub.fetch(source, FILE_NAME), f"{source.label}:{FILE_NAME}")
    if recipe.local:
        raise PlanError(f"{source.label}: cannot be made again from here: {', '.join(recipe.local)} was a local file.")
    if recipe.bn_images is not None and recipe.bn_images.local:
        raise PlanError(
            f"{source.label}: cannot be made again from here: BatchNorm's statistics were estimated on the images of "
            f"{recipe.bn_images.data}, which was a local folder."
        )
    stored = hub.file_hashes({name: hub.fetch(source, name) for name in recipe.output if name in source.files})
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:
        again = merge(
            recipe.models,
            recipe.anchor,
            knobs=recipe.knobs,
            inputs=recipe.inputs,
            output=Path(folder) / "again",
            writing=WriteOptions(recipe.files.format, recipe.files.max_shard_size, allow_nonfinite=True),
            progress=progress,
        )
    merged = dict(again.recipe.output)
    return Reproduction(source.label, merged == dict(recipe.output) == stored, recipe.output, stored, merged)
