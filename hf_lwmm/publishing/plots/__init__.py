"""Plots for model cards and notebooks, all in one style. Matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from hf_lwmm.publishing.plots.discrepancy import plot_discrepancy
from hf_lwmm.publishing.plots.layers import plot_layer_weights
from hf_lwmm.publishing.plots.scores import plot_class_scores, plot_confusion
from hf_lwmm.publishing.plots.style import COLOURS
from hf_lwmm.publishing.plots.sweeps import plot_knob, plot_subsets

__all__ = [
    "COLOURS",
    "plot_class_scores",
    "plot_confusion",
    "plot_discrepancy",
    "plot_knob",
    "plot_layer_weights",
    "plot_subsets",
]
