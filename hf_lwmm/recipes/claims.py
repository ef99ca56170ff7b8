"""Tell whether weights that were read are the merge that a recipe beside them tells of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hf_lwmm import hub
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.errors import HfLwmmError, HubError
from hf_lwmm.files.documents import read_text
from hf_lwmm.hub import Source
from hf_lwmm.recipes.recipe import FILE_NAME, Recipe, read_recipe


@dataclass(frozen=True)
class Claim:
    """A recipe that lies beside weights, and why they are not what it makes.

    `recipe` is None if it cannot be read. `fault` is empty if they are what it makes.
    """

    recipe: Recipe | None = field(repr=False)
    fault: str


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
    if FILE_NAME not in source.files:
        return None
    where = f"{source.label}, {FILE_NAME}"
    try:
        recipe = read_recipe(read_text(hub.fetch(source, FILE_NAME), where), where)
    except HubError:
        raise
    except HfLwmmError:
        return Claim(None, f"its {FILE_NAME} cannot be read")
    return Claim(recipe, _other_weights(recipe, files, branch) or _other_content(source, recipe.output))


def other_beside(source: Source, recipe: Recipe) -> str:
    """Say which file that is loaded with the weights is not the one that a recipe makes; empty if all are.

    Raises:
        HfLwmmError: as `claim_of`.
    """
    return _other_content(source, recipe.beside or {})


def _other_weights(recipe: Recipe, files: Sequence[str], branch: str) -> str:
    made = {name for name in recipe.output if not name.endswith(INDEX_SUFFIX)}
    if not made:
        return f"its {FILE_NAME} records no merged weights"
    if others := [name for name in files if name not in made]:
        return f"its {FILE_NAME} does not make {others[0]}"
    if left := made - set(files):
        return f"its {FILE_NAME} makes {min(left)}, too"
    # A copy of the anchor's torch file holds all its networks; a file of tensors has no other than the merged one.
    merged = recipe.knobs.branch
    if branch != merged and not (recipe.files.format != "torch" and branch == "student"):
        return f"its {FILE_NAME} merges the branch {merged}, not {branch}"
    return ""


def _other_content(source: Source, made: Mapping[str, str]) -> str:
    missing = [name for name in made if name not in source.files]
    if missing:
        return f"{missing[0]}, which its {FILE_NAME} makes, is missing"
    found = hub.file_hashes({name: hub.fetch(source, name) for name in made})
    changed = [name for name, digest in made.items() if found[name] != digest]
    return f"{changed[0]} is not the one that its {FILE_NAME} makes" if changed else ""
