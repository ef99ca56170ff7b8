"""Layer-wise model merging for segmentation checkpoints on the Hugging Face Hub.

    import hf_lwmm
    result = hf_lwmm.merge(["org/a", "org/b"], anchor="org/a", output="merged")

Names are imported when they are first used, so that `import hf_lwmm` costs nothing and changes nothing in other
libraries. `import hf_lwmm.networks` registers the package's networks with transformers' Auto classes.

Everywhere in the package, imports stand inside functions only where they keep torch, transformers, datasets,
matplotlib, scipy or another extra from loading, or huggingface_hub, which takes a tenth of a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__

if TYPE_CHECKING:
    from hf_lwmm.api.convert import Conversion, convert
    from hf_lwmm.api.diff import DiffReport, diff
    from hf_lwmm.api.evaluate import evaluate
    from hf_lwmm.api.export import Export, export
    from hf_lwmm.api.inspect import ModelInfo, inspect
    from hf_lwmm.api.load import load
    from hf_lwmm.api.measure import Measurement, measure
    from hf_lwmm.api.merge import MergeResult, merge
    from hf_lwmm.api.methods import list_methods
    from hf_lwmm.api.plan import plan
    from hf_lwmm.api.predict import predict
    from hf_lwmm.api.push import push
    from hf_lwmm.api.reproduce import Reproduction, reproduce
    from hf_lwmm.api.search import Search, search
    from hf_lwmm.api.sweep import sweep
    from hf_lwmm.data.loading import LabelledImages, open_images
    from hf_lwmm.engine.write_options import WriteOptions
    from hf_lwmm.errors import HfLwmmError
    from hf_lwmm.evaluation.overlays import Prediction, Predictions
    from hf_lwmm.evaluation.report import EvaluationReport
    from hf_lwmm.evaluation.spec import EvaluationSpec
    from hf_lwmm.hub import ModelRef, Pushed, PushOptions
    from hf_lwmm.labels import LabelSet, read_label_set
    from hf_lwmm.localhub.server import LocalHub, serve
    from hf_lwmm.methods import Method
    from hf_lwmm.methods.adaptive import Adaptive
    from hf_lwmm.methods.breadcrumbs import Breadcrumbs
    from hf_lwmm.methods.dare import Dare
    from hf_lwmm.methods.fisher import Fisher
    from hf_lwmm.methods.greedy_soup import GreedySoup
    from hf_lwmm.methods.isotropic import Isotropic
    from hf_lwmm.methods.layerwise import Layerwise
    from hf_lwmm.methods.lines import Lines
    from hf_lwmm.methods.model_stock import ModelStock
    from hf_lwmm.methods.permutation import Permutation
    from hf_lwmm.methods.regmean import RegMean
    from hf_lwmm.methods.schedule import layerwise_weights
    from hf_lwmm.methods.slerp import Slerp
    from hf_lwmm.methods.task_arithmetic import TaskArithmetic
    from hf_lwmm.methods.ties import Ties
    from hf_lwmm.networks.loading import LoadedModel
    from hf_lwmm.planning.images import ImageSource
    from hf_lwmm.planning.inputs import MergeInputs, NetworkOptions
    from hf_lwmm.planning.knobs import Knobs
    from hf_lwmm.planning.plan import MergePlan
    from hf_lwmm.planning.recipe import Recipe, load_recipe
    from hf_lwmm.progress import progress_bar
    from hf_lwmm.publishing.plots import (
        COLOURS,
        plot_class_scores,
        plot_confusion,
        plot_discrepancy,
        plot_knob,
        plot_layer_weights,
        plot_subsets,
    )
    from hf_lwmm.sweeping.grid import SweepAxes
    from hf_lwmm.sweeping.ranking import SweepReport
    from hf_lwmm.sweeping.sweep import SweepRun

# The public face: every name and the module that it comes from. A test holds the imports above against it.
_PUBLIC = {
    "api.convert": ("Conversion", "convert"),
    "api.diff": ("DiffReport", "diff"),
    "api.evaluate": ("evaluate",),
    "api.export": ("Export", "export"),
    "api.inspect": ("ModelInfo", "inspect"),
    "api.load": ("load",),
    "api.measure": ("Measurement", "measure"),
    "api.merge": ("MergeResult", "merge"),
    "api.methods": ("list_methods",),
    "api.plan": ("plan",),
    "api.predict": ("predict",),
    "api.push": ("push",),
    "api.reproduce": ("Reproduction", "reproduce"),
    "api.search": ("Search", "search"),
    "api.sweep": ("sweep",),
    "data.loading": ("LabelledImages", "open_images"),
    "engine.write_options": ("WriteOptions",),
    "errors": ("HfLwmmError",),
    "evaluation.overlays": ("Prediction", "Predictions"),
    "evaluation.report": ("EvaluationReport",),
    "evaluation.spec": ("EvaluationSpec",),
    "hub": ("ModelRef", "PushOptions", "Pushed"),
    "labels": ("LabelSet", "read_label_set"),
    "localhub.server": ("LocalHub", "serve"),
    "methods": ("Method",),
    "methods.adaptive": ("Adaptive",),
    "methods.breadcrumbs": ("Breadcrumbs",),
    "methods.dare": ("Dare",),
    "methods.fisher": ("Fisher",),
    "methods.greedy_soup": ("GreedySoup",),
    "methods.isotropic": ("Isotropic",),
    "methods.layerwise": ("Layerwise",),
    "methods.lines": ("Lines",),
    "methods.model_stock": ("ModelStock",),
    "methods.permutation": ("Permutation",),
    "methods.regmean": ("RegMean",),
    "methods.schedule": ("layerwise_weights",),
    "methods.slerp": ("Slerp",),
    "methods.task_arithmetic": ("TaskArithmetic",),
    "methods.ties": ("Ties",),
    "networks.loading": ("LoadedModel",),
    "planning.images": ("ImageSource",),
    "planning.inputs": ("MergeInputs", "NetworkOptions"),
    "planning.knobs": ("Knobs",),
    "planning.plan": ("MergePlan",),
    "planning.recipe": ("Recipe", "load_recipe"),
    "progress": ("progress_bar",),
    "publishing.plots": (
        *("COLOURS", "plot_class_scores", "plot_confusion", "plot_discrepancy", "plot_knob"),
        *("plot_layer_weights", "plot_subsets"),
    ),
    "sweeping.grid": ("SweepAxes",),
    "sweeping.ranking": ("SweepReport",),
    "sweeping.sweep": ("SweepRun",),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"hf_lwmm.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hf_lwmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
