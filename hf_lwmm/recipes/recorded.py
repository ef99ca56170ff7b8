"""Hold a merge that is made from a recipe against what the recipe records."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from hf_lwmm.checkpoints.companions import adapters_beside, loaded_beside
from hf_lwmm.recipes.recipe import Recipe


def other_inputs(recorded: Recipe, made: Recipe) -> tuple[str, ...]:
    """Return warnings about local inputs of a merge whose content is not what its recipe records, if it does."""
    was, now = _hashes(recorded), _hashes(made)
    if len(was) != len(now):  # another base, or other measurements
        was, now = was[: len(recorded.models)], now[: len(made.models)]
    return tuple(
        f"{ref} has changed: its SHA-256 is not the one that the recipe records, so this is another merge."
        for (ref, before), (_, after) in zip(was, now, strict=False)
        if ref in recorded.local and before and before != after
    )


def other_output(recorded: Recipe, made: Recipe) -> tuple[str, ...]:
    """Return a warning if weights that were merged as a recipe says are not those that it records, if it does."""
    as_told = (made.knobs, made.files, _anchor(made)) == (recorded.knobs, recorded.files, _anchor(recorded))
    if not as_told or not recorded.output or recorded.output == made.output:
        return ()
    return ("The merged weights are not those that the recipe records: their SHA-256 differ.",)


def added_beside(files: Collection[str], loaded: Collection[str], made: Recipe) -> str:
    """Return which of some files would be loaded together with weights though the merge does not make them.

    Args:
        files: the files of a repository or folder.
        loaded: those of weights that a loader would take; if there are none, the merge's.
        made: the recipe of the merge. One that does not say what stands beside the weights makes all but adapters.

    Returns:
        The fault in words, empty if there is none.
    """
    own = made.files_beside.keys()
    folders = {PurePosixPath(name).parent.as_posix() for name in loaded or made.weights}
    for folder in sorted(folders):
        found = loaded_beside(files, folder) if made.companions is not None else adapters_beside(files, folder)
        if others := [name for name in found if name not in own]:
            return f"{', '.join(others)} would be loaded together with the weights, which the recipe does not make"
    return ""


def _anchor(recipe: Recipe) -> int | None:
    return recipe.models.index(recipe.anchor) if recipe.anchor in recipe.models else None


def _hashes(recipe: Recipe) -> list[tuple[str, list[str]]]:
    return [(ref, sorted(sha256.values())) for ref, sha256 in zip(recipe.references, recipe.sha256, strict=False)]
