"""Print the layer table of a plan, for people and for programs."""

from __future__ import annotations

from collections import Counter

import hf_lwmm
from hf_lwmm.cli.terminal import console, note, notes, print_json, warn

_ROWS = 40
_NAMES = 3


def print_plan(plan: hf_lwmm.MergePlan, *, as_json: bool = False, full: bool = False) -> None:
    """Print a plan on stdout; a long table only by its two ends, unless `full`."""
    if as_json:
        print_json(plan.to_dict())
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
        cells = [_cell(shared.members, weights, model) for model in range(len(plan.checkpoints))]
        shape = "x".join(map(str, shared.shape))
        table.add_row(str(shared.position), shared.slot, shape + (" by label" if shared.rows else ""), *cells)
    out.print(table)
    if any(plan.slot_weights(shared) is None for shared in rows):
        why = "are decided when it merges" if plan.undecided else f"{plan.method.name} does not have"
        out.print(f"* stands for weights that {why}.", soft_wrap=True)
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


def _cell(members: tuple[int, ...], weights: dict[int, float] | None, model: int) -> str:
    """A model's weight at a slot; a star if the method has no such weights, a dash if the model takes no part."""
    if model not in members:
        return "-"
    return f"{weights[model]:.4f}" if weights else "*"


def note_plan(plan: hf_lwmm.PlanReport) -> None:
    """Say what is to be known of a plan besides its table: notes on its models, advice, and what is not decided yet."""
    for checkpoint in plan.sources:
        notes(checkpoint.notes)
    for warning in plan.warnings:
        warn(warning)
    if plan.advice_line:
        note(plan.advice_line)
    if plan.undecided:
        labels = "labelled" if "labels" in plan.method.needs else "unlabelled"
        note(f"{plan.method.name} decides the layer weights on {labels} images (--tune-data) when it merges.")
