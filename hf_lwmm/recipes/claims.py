"""Tell whether weights that were read are the merge that a recipe beside them tells of.

The recipe of a merge holds the hashes of its files. A merge that was converted has other files, whose hashes `convert`
adds to the recipe that comes along.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hf_lwmm import hub
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.errors import DocumentError, HfLwmmError, HubError, PlanError
from hf_lwmm.files.documents import read_text
from hf_lwmm.hub import Source
from hf_lwmm.recipes.recipe import CARRIED, FILE_NAME, Recipe, read_recipe

_OWN = re.compile(r"^hf_lwmm:", re.MULTILINE)  # the version, which every recipe has that this package wrote


@dataclass(frozen=True)
class Claim:
    """A recipe that lies beside weights, and why they are not the merge that it tells of.

    `recipe` is None if it cannot be read. `fault` is empty if they are that merge.
    """

    recipe: Recipe | None = field(repr=False)
    fault: str


def recipe_beside(source: Source) -> Recipe | None:
    """Return the recipe that lies beside the weights of a source, of a merge or of one that was converted.

    None if there is none. Other tools have files named merge.yaml, too, which are no recipes.

    Raises:
        HubError: if the Hub cannot be reached.
        PlanError: if it cannot be read.
    """
    name = _name(source)
    if name is None:
        return None
    where = f"{source.label}, {name}"
    try:
        text = read_text(hub.fetch(source, name), where)
    except DocumentError as error:
        raise PlanError(str(error)) from None
    if name == FILE_NAME:
        return read_recipe(text, where)
    if not _OWN.search(text):
        return None
    recipe = read_recipe(text, where)
    return recipe if recipe.converted is not None else replace(recipe, converted={})


def claim_of(source: Source, files: Sequence[str], branch: str) -> Claim | None:
    """Return what the recipe of a source claims of some of its weights, None if there is no recipe.

    Files are hashed only if names and branch do not tell already.

    Args:
        source: the repository or folder.
        files: the files of weights that were read.
        branch: which of the networks in them.

    Raises:
        HubError: if the Hub cannot be reached.
        CheckpointError: if a file cannot be read.
    """
    try:
        recipe = recipe_beside(source)
    except HubError:
        raise
    except HfLwmmError:
        return Claim(None, f"its {_name(source)} cannot be read")
    if recipe is None:
        return None
    return Claim(recipe, _other_weights(recipe, files, branch) or _other(source, recipe, recipe.weights))


def other_beside(source: Source, recipe: Recipe) -> str:
    """Say which file that is loaded with the weights is not the one that a recipe records; empty if all are.

    Raises:
        HfLwmmError: as `claim_of`.
    """
    return _other(source, recipe, recipe.companions or {})


def other_files(source: Source, recipe: Recipe) -> str:
    """Say why the files of a source are not those that the recipe beside them records; empty if they are.

    Raises:
        HfLwmmError: as `claim_of`.
    """
    return _unrecorded(recipe) or _other(source, recipe, recipe.files_beside)


def other_content(recipe: Recipe, found: Mapping[str, str]) -> str:
    """Say the same of files whose SHA-256 are known."""
    recorded = recipe.files_beside
    return _unrecorded(recipe) or _missing(recipe, recorded, found) or _changed(recipe, recorded, found)


def _name(source: Source) -> str | None:
    return next((name for name in (FILE_NAME, CARRIED) if name in source.files), None)


def _unrecorded(recipe: Recipe) -> str:
    return "" if recipe.weights else f"its {recipe.file_name} records no weights to check these against"


def _other_weights(recipe: Recipe, files: Sequence[str], branch: str) -> str:
    if unrecorded := _unrecorded(recipe):
        return unrecorded
    recorded = {name for name in recipe.weights if not name.endswith(INDEX_SUFFIX)}
    if others := [name for name in files if name not in recorded]:
        return f"its {recipe.file_name} does not record {others[0]}"
    if left := recorded - set(files):
        return f"its {recipe.file_name} records {min(left)}, too"
    # A copy of the anchor's torch file holds all its networks; a file of tensors has no other than the merged one.
    merged, alone = recipe.knobs.branch, recipe.converted is not None or recipe.files.format != "torch"
    if branch != merged and not (alone and branch == "student"):
        return f"its {recipe.file_name} merges the branch {merged}, not {branch}"
    return ""


def _other(source: Source, recipe: Recipe, recorded: Mapping[str, str]) -> str:
    if missing := _missing(recipe, recorded, source.files):
        return missing
    return _changed(recipe, recorded, hub.file_hashes({name: hub.fetch(source, name) for name in recorded}))


def _missing(recipe: Recipe, recorded: Mapping[str, str], files: Collection[str]) -> str:
    missing = [name for name in recorded if name not in files]
    return f"{missing[0]}, which its {recipe.file_name} records, is missing" if missing else ""


def _changed(recipe: Recipe, recorded: Mapping[str, str], found: Mapping[str, str]) -> str:
    changed = [name for name, digest in recorded.items() if found[name] != digest]
    return f"{changed[0]} is not the one that its {recipe.file_name} records" if changed else ""
