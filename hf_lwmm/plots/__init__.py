"""Plots for model cards and notebooks, all in one style.

Matplotlib is imported when it draws the first one. Layer weights, which every merge shows, are shapes that Pillow draws
without it; matplotlib draws the same shapes where vectors are asked for.
"""

from __future__ import annotations

from hf_lwmm.plots.discrepancy import plot_discrepancy
from hf_lwmm.plots.layers import plot_layer_weights
from hf_lwmm.plots.scores import plot_class_scores, plot_confusion
from hf_lwmm.plots.style import COLOURS, Plot
from hf_lwmm.plots.sweeps import plot_knob, plot_subsets

__all__ = [
    "COLOURS",
    "Plot",
    "plot_class_scores",
    "plot_confusion",
    "plot_discrepancy",
    "plot_knob",
    "plot_layer_weights",
    "plot_subsets",
]
