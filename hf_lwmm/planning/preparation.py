"""Notice models that see pictures in other numbers than the anchor, whose image processor a merge keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.companions import ProcessorSettings

_TOLERANCE = 3.0  # levels of 255 between what one normalisation and another make of the same pixel
_OWN = "SegmentationImageProcessor"  # of this package, which does not rescale if it is not told to


def preparation_warnings(checkpoints: Sequence[Checkpoint], anchor: int) -> tuple[str, ...]:
    """Return a warning for each model whose image processor normalises pixels otherwise than the anchor's.

    Models without an image processor, and settings that are left to its class, say nothing.

    Args:
        checkpoints: the models; headers are enough.
        anchor: the index of the anchor.

    Raises:
        DocumentError: if the settings of an image processor cannot be used.
    """
    ours = _seen(checkpoints[anchor].processor)
    warnings = []
    for model, other in enumerate(checkpoints):
        theirs = _seen(other.processor)
        if model != anchor and ours is not None and theirs is not None and np.abs(ours - theirs).max() > _TOLERANCE:
            warnings.append(
                f"{other.label} normalises pictures otherwise than {checkpoints[anchor].label}, whose image processor "
                "the merge keeps, so its weights would see pictures that they were not trained on. Score the merge "
                "before you use it."
            )
    return tuple(warnings)


def _seen(settings: ProcessorSettings | None) -> NDArray[np.float64] | None:
    """The levels of 255, red, green and blue, that an image processor turns into 0 and into 1; None if unknown."""
    if settings is None:
        return None
    content: Any = settings.content
    mean, std = (_three(content.get(name)) for name in ("image_mean", "image_std"))
    if content.get("do_normalize") is False:
        mean, std = np.zeros(3), np.ones(3)
    if mean is None or std is None:
        return None
    own = settings.kind == _OWN
    factor = content.get("rescale_factor") or (1.0 if own else 1 / 255)
    if content.get("do_rescale") is False and not own:
        factor = 1.0
    levels = np.stack([mean, mean + std]) / factor
    reverse = content.get("channel_order") == "BGR"
    return levels[:, ::-1] if reverse else levels


def _three(value: Any) -> NDArray[np.float64] | None:
    values = np.atleast_1d(np.asarray(value if value is not None else [], np.float64))
    return np.broadcast_to(values, 3) if values.size in (1, 3) else None
