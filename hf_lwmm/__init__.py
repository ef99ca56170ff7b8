"""Layer-wise model merging for segmentation checkpoints on the Hugging Face Hub.

    import hf_lwmm
    result = hf_lwmm.merge(["org/a", "org/b"], anchor="org/a", output="merged")

Names are imported when they are first used, so that `import hf_lwmm` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__

if TYPE_CHECKING:
    from hf_lwmm.converting import Conversion, convert
    from hf_lwmm.errors import HfLwmmError
    from hf_lwmm.inspection import ModelInfo, inspect
    from hf_lwmm.merging import MergeResult, Reproduction, merge, plan, push, reproduce
    from hf_lwmm.planning import Knobs, MergePlan

_HOMES = {
    "Conversion": "converting",
    "HfLwmmError": "errors",
    "Knobs": "planning",
    "MergePlan": "planning",
    "MergeResult": "merging",
    "ModelInfo": "inspection",
    "Reproduction": "merging",
    "convert": "converting",
    "inspect": "inspection",
    "merge": "merging",
    "plan": "merging",
    "push": "merging",
    "reproduce": "merging",
}

__all__ = [
    "Conversion",
    "HfLwmmError",
    "Knobs",
    "MergePlan",
    "MergeResult",
    "ModelInfo",
    "Reproduction",
    "__version__",
    "convert",
    "inspect",
    "merge",
    "plan",
    "push",
    "reproduce",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"hf_lwmm.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hf_lwmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
