"""The differences between two models over depth."""

from __future__ import annotations

from hf_lwmm.planning.discrepancy import Discrepancy
from hf_lwmm.plots.style import GREY, Place, colour, legend_above, literal, mark_boundary, picture

_LABELS = {"weights": "weights", "biases": "biases", "bn_stats": "BatchNorm statistics"}  # of the kinds of tensors

_ALL = "all tensors of a layer"


def plot_discrepancy(report: Discrepancy, path: Place) -> None:
    """Plot the distance between two models over depth (paper, Figure 2).

    The upper panel has the relative distance of every tensor and a line at each 1/tau. The lower panels, one for each
    tau, have bars with the number of changed tensors in each layer, in front of grey bars with the number of all its
    tensors. Weights, biases and running statistics differ in colour.

    Args:
        report: the differences between the two models.
        path: a file name that ends in .png, .svg or .pdf, or a buffer for a PNG.

    Raises:
        PlotError: if the file cannot be written under this name.
    """
    layers, positions = report.layers, max((layer.position for layer in report.layers), default=1)
    kinds = list(report.layers[0].tensors) if layers else []
    with picture(path, 2.4 + 1.1 * len(report.taus)) as figure:
        heights = [2.0, *(1.0 for _ in report.taus)]
        upper, *lower = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        drawn = 0
        for index, kind in enumerate(kinds):
            points = [(t.position, t.relative) for t in report.tensors if t.kind == kind and t.relative]
            drawn += len(points)
            if points:
                x, y = zip(*points, strict=True)
                upper.scatter(x, y, s=7, linewidths=0, color=colour(index), label=_LABELS[kind])
        upper.scatter([], [], marker="s", color=GREY, label=_ALL)
        for tau in report.taus:
            upper.axhline(1 / tau, color="black", linestyle="--", linewidth=0.8)
            upper.text(1.005, 1 / tau, f"1/{tau:g}", transform=upper.get_yaxis_transform(), fontsize=8, va="center")
        upper.set(yscale="log", ylabel=r"$\Vert a - b\,\Vert\;/\;\Vert a\,\Vert$")
        mark_boundary(upper, report.boundary, positions)
        if drawn < len(report.tensors):
            title = f"{len(report.tensors) - drawn:,} of {len(report.tensors):,} tensors are equal or all zero in a"
            upper.set_title(title, fontsize=8, pad=16 if report.boundary else 6)
        for row, axes in enumerate(lower):
            bottoms = [0] * len(layers)
            where = [layer.position for layer in layers]
            axes.bar(where, [sum(layer.tensors.values()) for layer in layers], width=1, color=GREY)
            for index, kind in enumerate(kinds):
                changed = [layer.changed[kind][row] for layer in layers]
                axes.bar(where, changed, width=1, bottom=bottoms, color=colour(index))
                bottoms = [a + b for a, b in zip(bottoms, changed, strict=True)]
            axes.set(ylabel=f"changed\n(τ = {report.taus[row]:g})", xlim=(0.5, positions + 0.5))
            axes.yaxis.get_major_locator().set_params(integer=True)
            if 0 < report.boundary < positions:
                axes.axvline(report.boundary + 0.5, color="black", linestyle=":", linewidth=1)
        first, second = map(literal, report.models)
        between = "\n" if len(first) + len(second) > 60 else ", "
        lower[-1].set_xlabel(f"{report.granularity}, in depth order; a is {first}{between}b is {second}")
        legend_above(figure, upper, [*(_LABELS[kind] for kind in kinds), _ALL])
