"""Layer-wise model merging for segmentation checkpoints on the Hugging Face Hub.

    import hf_lwmm
    result = hf_lwmm.merge(["org/a", "org/b"], anchor="org/a", output="merged")

Names are imported when they are first used, so that `import hf_lwmm` costs nothing. Its networks are registered with
transformers' Auto classes when these are imported, before or after.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__

if TYPE_CHECKING:
    from hf_lwmm.api.convert import Conversion, convert
    from hf_lwmm.api.export import export
    from hf_lwmm.api.inspect import ModelInfo, inspect
    from hf_lwmm.api.merge import MergeResult, Reproduction, merge, plan, push, reproduce
    from hf_lwmm.api.search import Search, search
    from hf_lwmm.errors import HfLwmmError
    from hf_lwmm.evaluation.evaluate import EvaluationReport, evaluate
    from hf_lwmm.networks.loading import LoadedModel, load
    from hf_lwmm.planning.discrepancy import Discrepancy, diff
    from hf_lwmm.planning.plan import Knobs, MergePlan
    from hf_lwmm.progress import progress_bar
    from hf_lwmm.sweeping.sweep import sweep

_HOMES = {
    "EvaluationReport": "evaluation.evaluate",
    "Conversion": "api.convert",
    "Discrepancy": "planning.discrepancy",
    "HfLwmmError": "errors",
    "Knobs": "planning.plan",
    "LoadedModel": "networks.loading",
    "MergePlan": "planning.plan",
    "MergeResult": "api.merge",
    "ModelInfo": "api.inspect",
    "Reproduction": "api.merge",
    "Search": "api.search",
    "convert": "api.convert",
    "diff": "planning.discrepancy",
    "evaluate": "evaluation.evaluate",
    "export": "api.export",
    "inspect": "api.inspect",
    "load": "networks.loading",
    "merge": "api.merge",
    "plan": "api.merge",
    "progress_bar": "progress",
    "push": "api.merge",
    "reproduce": "api.merge",
    "search": "api.search",
    "sweep": "sweeping.sweep",
}

__all__ = [
    "Conversion",
    "Discrepancy",
    "EvaluationReport",
    "HfLwmmError",
    "Knobs",
    "LoadedModel",
    "MergePlan",
    "MergeResult",
    "ModelInfo",
    "Reproduction",
    "Search",
    "__version__",
    "convert",
    "diff",
    "evaluate",
    "export",
    "inspect",
    "load",
    "merge",
    "plan",
    "progress_bar",
    "push",
    "reproduce",
    "search",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"hf_lwmm.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hf_lwmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _RegisterNetworks:
    """Imports hf_lwmm.networks after the first of transformers' Auto classes, which are to know its networks.

    Not before the outermost import of transformers is through: until then its modules are not whole.
    """

    modules = tuple(
        f"transformers.models.auto.{kind}_auto" for kind in ("configuration", "modeling", "image_processing")
    )
    depth = 0

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith("transformers."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then_register(module: Any) -> None:
                cls.depth += 1
                try:
                    execute(module)
                finally:
                    cls.depth -= 1
                if not cls.depth and sys.modules.keys() & set(cls.modules) and cls in sys.meta_path:
                    sys.meta_path.remove(cls)
                    import_module("hf_lwmm.networks")

            spec.loader.exec_module = then_register  # type: ignore[method-assign]
        return spec


if sys.modules.keys() & set(_RegisterNetworks.modules):
    import_module("hf_lwmm.networks")
else:
    sys.meta_path.insert(0, _RegisterNetworks)
