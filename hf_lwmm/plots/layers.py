"""The layer weights of a merge over depth."""

from __future__ import annotations

from hf_lwmm.layouts import in_backbone
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.plots.style import (
    Place,
    PlotError,
    colour,
    legend_above,
    legend_height,
    literal,
    mark_boundary,
    picture,
)


def plot_layer_weights(plan: MergePlan, path: Place) -> None:
    """Plot the layer weights of a convex method over depth, as stacked areas (paper, Figure 5a).

    Args:
        plan: a plan with layer weights.
        path: a file name that ends in .png, .svg or .pdf, or a buffer for a PNG.

    Raises:
        PlotError: if the method has no layer weights, or the file cannot be written under this name.
    """
    if plan.layer_weights is None:
        raise PlotError(f"--method {plan.method.name} has no weights of whole layers to plot.")
    anchor = plan.alignment.anchor
    order = [anchor, *(model for model in range(len(plan.checkpoints)) if model != anchor)]
    weights = plan.layer_weights[:, order].T
    positions = weights.shape[1]
    names = [literal(plan.labels[model]) + (" (anchor)" if model == anchor else "") for model in order]
    with picture(path, 2.6 + legend_height(names)) as figure:
        axes = figure.subplots()
        colours = [colour(index) for index in range(len(order))]
        axes.stackplot(range(1, positions + 1), weights, labels=names, colors=colours, edgecolor="white", linewidth=0.6)
        backbone = max((s.position for s in plan.alignment.shared if in_backbone(s.slot)), default=0)
        mark_boundary(axes, backbone, positions)
        axes.set(xlim=(1, max(positions, 2)), ylim=(0, 1), xlabel="depth position", ylabel="weight")
        legend_above(figure, axes, names)
