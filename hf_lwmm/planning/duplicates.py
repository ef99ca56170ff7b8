"""Notice models that are named twice, or as the base as well."""

from __future__ import annotations

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.planning.plan import MergePlan


def duplicate_warnings(plan: MergePlan) -> tuple[str, ...]:
    """Return a warning for each model that is named before it, and one for a base that is also a model."""
    places = [_place(checkpoint) for checkpoint in plan.checkpoints]
    warnings = [
        f"{checkpoint.label} is merged with itself: the same model is named twice."
        for index, checkpoint in enumerate(plan.checkpoints)
        if places[index] in places[:index]
    ]
    if plan.base is not None and _place(plan.base) in places:
        warnings.append(f"{plan.base.label} is the base and also a model to merge: that model adds nothing to it.")
    return tuple(warnings)


def _place(checkpoint: Checkpoint) -> tuple[object, ...]:
    """The files that a checkpoint was read from, however they were named, and its branch in them."""
    source = checkpoint.source
    local = source.ref.is_local  # a folder may be named, or a file in it
    files = sorted(path.resolve() for path in checkpoint.paths.values()) if local else checkpoint.files
    return source.ref.repo_id, source.sha, tuple(files), checkpoint.branch
