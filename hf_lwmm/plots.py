"""The pictures in a model card."""

from __future__ import annotations

from pathlib import Path

from hf_lwmm.planning import MergePlan

# Okabe and Ito's colours, told apart by colour-blind readers; the anchor has the first.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


def plot_layer_weights(plan: MergePlan, path: Path) -> None:
    """Write a convex method's weights as stacked areas over depth (paper, Figure 5a) as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    anchor = plan.alignment.anchor
    order = [anchor, *(model for model in range(len(plan.checkpoints)) if model != anchor)]
    assert plan.weights is not None
    weights = plan.weights[:, order].T
    positions = range(1, weights.shape[1] + 1)
    names = [plan.labels[model] + (" (anchor)" if model == anchor else "") for model in order]
    figure = Figure(figsize=(7.2, 2.8), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(order))]
    axes.stackplot(positions, weights, labels=names, colors=colours, linewidth=0)
    backbone_end = max((s.position for s in plan.alignment.shared if _in_backbone(s.slot)), default=0)
    if 0 < backbone_end < weights.shape[1]:
        axes.axvline(backbone_end + 0.5, color="black", linestyle=":", linewidth=1)
        axes.text(backbone_end, 0.03, "backbone ", ha="right", fontsize=8)
        if backbone_end < 0.9 * weights.shape[1]:
            axes.text(backbone_end + 1, 0.03, " head", ha="left", fontsize=8)
    axes.set(xlim=(1, max(weights.shape[1], 2)), ylim=(0, 1), xlabel="depth position", ylabel="weight")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(order), 2), frameon=False, fontsize=8)
    # Without the writer's version in it, the same plan gives the same file.
    figure.savefig(path, metadata={"Software": None})


def _in_backbone(slot: str) -> bool:
    from hf_lwmm.layouts import place_of

    found = place_of(slot)
    return found is not None and found[0].kind == "backbone"
