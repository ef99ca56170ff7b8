"""Layer-wise model merging for vision checkpoints on the Hugging Face Hub.

    import hf_lwmm
    result = hf_lwmm.merge(["org/a", "org/b"], anchor="org/a", output="merged")

Names are imported when they are first used, so that `import hf_lwmm` costs nothing and changes nothing in other
libraries. `import hf_lwmm.networks` registers the package's networks with transformers' Auto classes.

Everywhere in the package, imports stand inside functions only where they keep torch, transformers, datasets,
matplotlib, scipy or another extra from loading, or huggingface_hub, which takes a tenth of a second.
"""

from __future__ import annotations

import ast
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_lwmm._version import __version__
from hf_lwmm.errors import naming_extras

if TYPE_CHECKING:  # the public face: every name under its own name, and the module that it comes from
    from hf_lwmm.api.convert import convert as convert
    from hf_lwmm.api.diff import DiffReport as DiffReport
    from hf_lwmm.api.diff import diff as diff
    from hf_lwmm.api.diff import diff_headers as diff_headers
    from hf_lwmm.api.evaluate import evaluate as evaluate
    from hf_lwmm.api.export import Export as Export
    from hf_lwmm.api.export import export as export
    from hf_lwmm.api.inspect import ModelInfo as ModelInfo
    from hf_lwmm.api.inspect import inspect as inspect
    from hf_lwmm.api.load import load as load
    from hf_lwmm.api.local_models import known_local_models as known_local_models
    from hf_lwmm.api.measure import Measurement as Measurement
    from hf_lwmm.api.measure import measure as measure
    from hf_lwmm.api.merge import MergeResult as MergeResult
    from hf_lwmm.api.merge import merge as merge
    from hf_lwmm.api.methods import list_methods as list_methods
    from hf_lwmm.api.plan import PlanReport as PlanReport
    from hf_lwmm.api.plan import plan as plan
    from hf_lwmm.api.predict import predict as predict
    from hf_lwmm.api.push import push as push
    from hf_lwmm.api.reproduce import Reproduction as Reproduction
    from hf_lwmm.api.reproduce import reproduce as reproduce
    from hf_lwmm.api.search import Search as Search
    from hf_lwmm.api.search import search as search
    from hf_lwmm.api.sweep import sweep as sweep
    from hf_lwmm.data.loading import open_images as open_images
    from hf_lwmm.data.samples import LabelledImages as LabelledImages
    from hf_lwmm.describing.network_description import NetworkDescription as NetworkDescription
    from hf_lwmm.engine.write_options import WriteOptions as WriteOptions
    from hf_lwmm.errors import (
        AlignmentError as AlignmentError,
    )
    from hf_lwmm.errors import (
        CardError as CardError,
    )
    from hf_lwmm.errors import (
        CheckpointError as CheckpointError,
    )
    from hf_lwmm.errors import (
        DatasetError as DatasetError,
    )
    from hf_lwmm.errors import (
        DocumentError as DocumentError,
    )
    from hf_lwmm.errors import (
        ExtraError as ExtraError,
    )
    from hf_lwmm.errors import (
        HfLwmmError as HfLwmmError,
    )
    from hf_lwmm.errors import (
        HubError as HubError,
    )
    from hf_lwmm.errors import (
        LayoutError as LayoutError,
    )
    from hf_lwmm.errors import (
        MergeError as MergeError,
    )
    from hf_lwmm.errors import (
        MetricError as MetricError,
    )
    from hf_lwmm.errors import (
        OutputError as OutputError,
    )
    from hf_lwmm.errors import (
        PlanError as PlanError,
    )
    from hf_lwmm.errors import (
        RefError as RefError,
    )
    from hf_lwmm.errors import (
        SweepError as SweepError,
    )
    from hf_lwmm.evaluation.examples import save_examples as save_examples
    from hf_lwmm.evaluation.overlays import Prediction as Prediction
    from hf_lwmm.evaluation.overlays import Predictions as Predictions
    from hf_lwmm.evaluation.report import EvaluationReport as EvaluationReport
    from hf_lwmm.evaluation.spec import EvaluationSpec as EvaluationSpec
    from hf_lwmm.evaluation.verdict import Verdict as Verdict
    from hf_lwmm.hub import ModelRef as ModelRef
    from hf_lwmm.hub import Pushed as Pushed
    from hf_lwmm.hub import PushOptions as PushOptions
    from hf_lwmm.hub import parse_ref as parse_ref
    from hf_lwmm.labels import LabelSet as LabelSet
    from hf_lwmm.labels import read_label_set as read_label_set
    from hf_lwmm.localhub.server import LocalHub as LocalHub
    from hf_lwmm.localhub.server import serve as serve
    from hf_lwmm.methods import Method as Method
    from hf_lwmm.methods.adaptive import Adaptive as Adaptive
    from hf_lwmm.methods.breadcrumbs import Breadcrumbs as Breadcrumbs
    from hf_lwmm.methods.dare import Dare as Dare
    from hf_lwmm.methods.fisher import Fisher as Fisher
    from hf_lwmm.methods.greedy_soup import GreedySoup as GreedySoup
    from hf_lwmm.methods.isotropic import Isotropic as Isotropic
    from hf_lwmm.methods.layerwise import Layerwise as Layerwise
    from hf_lwmm.methods.lines import Lines as Lines
    from hf_lwmm.methods.model_stock import ModelStock as ModelStock
    from hf_lwmm.methods.permutation import Permutation as Permutation
    from hf_lwmm.methods.regmean import RegMean as RegMean
    from hf_lwmm.methods.schedule import layerwise_weights as layerwise_weights
    from hf_lwmm.methods.slerp import Slerp as Slerp
    from hf_lwmm.methods.task_arithmetic import TaskArithmetic as TaskArithmetic
    from hf_lwmm.methods.ties import Ties as Ties
    from hf_lwmm.methods.wise import Wise as Wise
    from hf_lwmm.networks.loaded_model import LoadedModel as LoadedModel
    from hf_lwmm.planning.advice import Advice as Advice
    from hf_lwmm.planning.conversion import Conversion as Conversion
    from hf_lwmm.planning.header_diff import HeaderDiff as HeaderDiff
    from hf_lwmm.planning.images import ImageSource as ImageSource
    from hf_lwmm.planning.inputs import MergeInputs as MergeInputs
    from hf_lwmm.planning.inputs import NetworkOptions as NetworkOptions
    from hf_lwmm.planning.knobs import Knobs as Knobs
    from hf_lwmm.planning.plan import MergePlan as MergePlan
    from hf_lwmm.plots import (
        COLOURS as COLOURS,
    )
    from hf_lwmm.plots import (
        Plot as Plot,
    )
    from hf_lwmm.plots import (
        plot_class_scores as plot_class_scores,
    )
    from hf_lwmm.plots import (
        plot_confusion as plot_confusion,
    )
    from hf_lwmm.plots import (
        plot_discrepancy as plot_discrepancy,
    )
    from hf_lwmm.plots import (
        plot_knob as plot_knob,
    )
    from hf_lwmm.plots import (
        plot_layer_weights as plot_layer_weights,
    )
    from hf_lwmm.plots import (
        plot_subsets as plot_subsets,
    )
    from hf_lwmm.plots.style import PlotError as PlotError
    from hf_lwmm.plots.sweeps import save_sweep_plots as save_sweep_plots
    from hf_lwmm.progress import progress_bar as progress_bar
    from hf_lwmm.publishing.command import merge_command as merge_command
    from hf_lwmm.publishing.lineage import FinishedMerge as FinishedMerge
    from hf_lwmm.publishing.lineage import finished_merge as finished_merge
    from hf_lwmm.publishing.places import check_picture_name as check_picture_name
    from hf_lwmm.publishing.places import check_score_plots as check_score_plots
    from hf_lwmm.publishing.places import check_sweep_plots as check_sweep_plots
    from hf_lwmm.publishing.reports import check_report_name as check_report_name
    from hf_lwmm.publishing.reports import save_report as save_report
    from hf_lwmm.publishing.score_plots import save_score_plots as save_score_plots
    from hf_lwmm.recipes.recipe import Recipe as Recipe
    from hf_lwmm.recipes.recipe import load_recipe as load_recipe
    from hf_lwmm.sweeping.grid import SweepAxes as SweepAxes
    from hf_lwmm.sweeping.ranking import SweepReport as SweepReport
    from hf_lwmm.sweeping.run_options import SweepRun as SweepRun


def _homes() -> dict[str, tuple[str, str]]:
    """Return module and name there of each public name, read from the imports above: they are the one table of them."""
    source = __spec__.loader.get_source(__name__)  # type: ignore[union-attr]
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {str(each.asname): (str(node.module), each.name) for node in imports for each in node.names if each.asname}


_HOMES = _homes()
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, own = _HOMES[name]
        with naming_extras(f"hf_lwmm.{name}"):
            return getattr(import_module(module), own)
    raise AttributeError(f"module 'hf_lwmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
