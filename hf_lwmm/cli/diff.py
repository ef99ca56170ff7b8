"""`hf-lwmm diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import completed
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import console, note, print_json, progress_bar, say
from hf_lwmm.text import near_one

EXAMPLES = """Examples:

hf-lwmm diff org/a org/b --granularity block

hf-lwmm diff org/a org/b --tau 10 --tau 100 --plot diff.png

hf-lwmm diff org/a org/b:latest.pth --headers"""

_ROWS = 40
_GRAINS = ("module", "block", "stage")


@command(EXAMPLES)
@click.argument("first", type=options.PLACE, help=options.MODEL)
@click.argument("second", type=options.PLACE, help="Model that the first is compared with.")
@option(
    "--tau",
    type=float,
    metavar="TAU",
    multiple=True,
    help="Count a tensor as changed if it moved by 1/TAU of its norm; 10 if not given. Repeatable.",
)
@option(
    "--granularity",
    default="module",
    metavar="|".join(_GRAINS),
    help="Size of a layer.",
    shell_complete=completed(_GRAINS),
)
@option("--plot", type=options.PATH, help="Draw the differences over depth (.png, .svg, .pdf).")
@options.overwrite
@options.branch
@options.target
@options.base
@option("--headers", is_flag=True, help="Compare names, shapes and types alone; nothing is downloaded.")
@option("--full", is_flag=True, help="Print every layer, however many.")
@options.as_json
def diff(
    first: str,
    second: str,
    tau: tuple[float, ...],
    granularity: str,
    plot: Path | None,
    overwrite: bool,
    branch: str,
    target: str | None,
    base: str | None,
    headers: bool,
    full: bool,
    as_json: bool,
) -> None:
    """Compare two models layer by layer.

    The last lines judge whether they come from one pre-training, and advise how to merge them.
    """
    if headers:
        if tau or plot is not None or granularity != "module" or target or base:
            what = "--tau, --granularity, --plot, --target and --base"
            raise hf_lwmm.PlanError(f"--headers reads no values; leave out {what}.")
        _show_headers(hf_lwmm.diff_headers(first, second, branch=branch), full, as_json)
        return
    place = hf_lwmm.check_picture_name(plot, first, second, overwrite=overwrite) if plot is not None else None
    with progress_bar() as progress:
        report = hf_lwmm.diff(
            first,
            second,
            taus=tau or [10.0],
            granularity=granularity,
            branch=branch,
            target=target,
            base=base,
            progress=progress,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report, full)
    if place is not None:
        hf_lwmm.plot_discrepancy(report, place)
        note(f"Drew {place.path}")


def _show_headers(found: hf_lwmm.HeaderDiff, full: bool, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict())
        return
    for letter, model, layout, only in zip("ab", found.models, found.layouts, found.only, strict=True):
        say(f"{letter}. {model}: {layout}, {len(only):,} slots that the other lacks")
    say(f"{found.shared:,} slots agree in name and shape.")
    sections = {
        "only in a": found.only[0],
        "only in b": found.only[1],
        "other shape": [f"{slot}: {a}, {b}" for slot, (a, b) in found.shapes.items()],
        "other type": [f"{slot}: {a}, {b}" for slot, (a, b) in found.dtypes.items()],
    }
    for title, lines in sections.items():
        shown = lines if full else lines[: _ROWS // 4]
        for line in shown:
            say(f"  {title}: {line}")
        if len(lines) > len(shown):
            say(f"  {title}: {len(lines) - len(shown):,} more (--full)")


def _print(report: hf_lwmm.DiffReport, full: bool) -> None:
    from rich.table import Table

    out = console(120)
    kinds = {"weights": "weights", "biases": "biases", "bn_stats": "BN statistics"}
    out.print(f"a. {report.models[0]}\nb. {report.models[1]}", soft_wrap=True)
    layers = report.layers
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column(report.granularity, overflow="fold")
    for title in ("parameters", "cosine", "|a-b|/|a|", *kinds.values()):
        table.add_column(title, justify="right", no_wrap=True)
    shown = layers if full or len(layers) <= _ROWS else [*layers[: _ROWS // 2], None, *layers[-_ROWS // 2 :]]
    for layer in shown:
        if layer is None:
            table.add_row("...", f"{len(layers) - _ROWS:,} more (--full)")
            continue
        table.add_row(
            str(layer.position),
            layer.name,
            f"{layer.parameters:,}",
            "-" if layer.cosine is None else near_one(layer.cosine),
            "-" if layer.relative is None else f"{layer.relative:.3g}",
            *(_changed(layer, kind) for kind in kinds),
            end_section=layer.position == report.boundary,
        )
    out.print(table)
    changed = ", ".join(f"|a|/{tau:g}" for tau in report.taus)
    out.print(
        f"weights, biases, BN statistics: how many tensors moved by {changed} or more / of how many.", soft_wrap=True
    )
    for reason, slots in report.reasons.items():
        dots = ", ..." if len(slots) > 3 and not full else ""
        names = ", ".join(slots if full else slots[:3])
        out.print(f"Not compared: {len(slots):,}: {reason}: {names}{dots}", soft_wrap=True)
    advice = report.advice.line if report.advice else ""
    for line in filter(None, (report.distance(), report.pretraining.message, advice)):
        out.print(line, soft_wrap=True)


def _changed(layer: Any, kind: str) -> str:
    count = layer.tensors[kind]
    return f"{','.join(map(str, layer.changed[kind]))}/{count}" if count else ""
