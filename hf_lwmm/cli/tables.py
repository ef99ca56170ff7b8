"""The layer table of a plan, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from hf_lwmm.cli.terminal import console, print_json
from hf_lwmm.planning.alignment import SharedSlot
from hf_lwmm.planning.plan import MergePlan

_ROWS = 40
_NAMES = 3


def print_plan(plan: MergePlan, *, as_json: bool = False, full: bool = False) -> None:
    """Print a plan on stdout; of long tables only both ends unless `full`."""
    if as_json:
        print_json(plan_data(plan))
        return
    from rich.table import Table

    alignment, anchor = plan.alignment, plan.alignment.anchor
    out = console()
    for index, checkpoint in enumerate(plan.checkpoints):
        role = " (anchor)" if index == anchor else ""
        out.print(
            f"{index + 1}. {checkpoint.label}{role}: {checkpoint.slot_map.architecture}, {checkpoint.slot_map.layout}"
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("position", justify="right")
    table.add_column("slot", overflow="fold")
    table.add_column("shape")
    for index in range(len(plan.checkpoints)):
        table.add_column(f"{index + 1}{'*' if index == anchor else ''}", justify="right")
    rows = list(alignment.shared)
    shown = rows if full or len(rows) <= _ROWS else [*rows[: _ROWS // 2], None, *rows[-_ROWS // 2 :]]
    for shared in shown:
        if shared is None:
            table.add_row("...", f"{len(rows) - _ROWS:,} more (--full)", "", *("" for _ in plan.checkpoints))
            continue
        weights = plan.slot_weights(shared)
        cells = [_cell(shared, weights, model) for model in range(len(plan.checkpoints))]
        shape = "x".join(map(str, shared.shape))
        table.add_row(str(shared.position), shared.slot, shape + (" by label" if shared.rows else ""), *cells)
    out.print(table)
    share = alignment.shared_parameters / max(alignment.anchor_parameters, 1)
    out.print(f"{len(rows):,} slots at {alignment.positions:,} positions; {share:.1%} of the anchor's weights.")
    counts = Counter((entry.model, entry.reason) for entry in alignment.unshared)
    if counts:
        out.print("Not shared:")
    for (model, reason), count in counts.most_common():
        names = [entry.slot for entry in alignment.unshared if (entry.model, entry.reason) == (model, reason)]
        limit = count if full else _NAMES
        dots = ", ..." if count > limit else ""
        out.print(f"  {count:,} of {plan.labels[model]}: {reason}: {', '.join(names[:limit])}{dots}", soft_wrap=True)


def _cell(shared: SharedSlot, weights: dict[int, float] | None, model: int) -> str:
    """A model's weight at a slot; a mark if the method has none, a dash if the model takes no part."""
    if model not in shared.members:
        return "-"
    return f"{weights[model]:.4f}" if weights else "*"


def _weights_data(plan: MergePlan, shared: SharedSlot) -> dict[str, float] | None:
    weights = plan.slot_weights(shared)
    return None if weights is None else {plan.labels[model]: weight for model, weight in weights.items()}


def plan_data(plan: MergePlan) -> dict[str, Any]:
    """A plan as plain data."""
    return {
        "models": list(plan.labels),
        "anchor": plan.alignment.anchor,
        "knobs": asdict(plan.knobs),
        "positions": plan.alignment.positions,
        "shared_parameters": plan.alignment.shared_parameters,
        "anchor_parameters": plan.alignment.anchor_parameters,
        "shared": [
            {
                "position": shared.position,
                "slot": shared.slot,
                "shape": list(shared.shape),
                "models": [plan.labels[model] for model in shared.members],
                "weights": _weights_data(plan, shared),
                "by_label": shared.rows is not None,
            }
            for shared in plan.alignment.shared
        ],
        "unshared": [
            {"slot": entry.slot, "model": plan.labels[entry.model], "reason": entry.reason}
            for entry in plan.alignment.unshared
        ],
    }
