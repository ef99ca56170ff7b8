"""Hold a merge that is made from a recipe against what the recipe records."""

from __future__ import annotations

import re
from pathlib import Path

from hf_lwmm.errors import PlanError
from hf_lwmm.planning.recipe import Recipe

_NUMBERED = re.compile(r"(.+) \(\d+\)", re.DOTALL)  # as recipes name local models of one name


def check_told_apart(recipe: Recipe, name: str) -> None:
    """Refuse to look by one name for several local models; `name` is what messages call the recipe.

    Raises:
        PlanError: if local models had one name, which is numbered now, or, in recipes of older versions, have it still.
    """
    hashes: dict[str, list[str]] = {}
    for ref, sha256 in zip(recipe.models, recipe.sha256, strict=False):
        numbered = _NUMBERED.fullmatch(ref) if ref in recipe.local and not Path(ref).exists() else None
        own = sorted(sha256.values())
        if hashes.setdefault(ref, own) != own or (numbered and numbered[1] in hashes):
            raise PlanError(
                f"{name}: has several local models named {numbered[1] if numbered else ref}. Name all models, in its "
                f"order, and the anchor: hf-lwmm merge FIRST SECOND --anchor FIRST --recipe {name}"
            )


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
    """Return a warning if the merged weights are not those that a recipe records, if it does."""
    if not recorded.output or recorded.output == made.output:
        return ()
    return ("The merged weights are not those that the recipe records: their SHA-256 differ.",)


def _hashes(recipe: Recipe) -> list[tuple[str, list[str]]]:
    refs = (*recipe.models, *([recipe.base] if recipe.base else []), *recipe.measurements)
    return [(ref, sorted(sha256.values())) for ref, sha256 in zip(refs, recipe.sha256, strict=False)]
