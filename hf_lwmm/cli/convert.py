"""`hf-lwmm convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.expand import Group
from hf_lwmm.cli.help import option
from hf_lwmm.cli.terminal import notes, print_json, print_pushed, progress_bar, say

EXAMPLES = """Examples:

hf-lwmm convert org/daformer:latest.pth --labels cityscapes19 --push

hf-lwmm convert nvidia/segformer-b5-finetuned-cityscapes-1024-1024 segformer.b5.pth --to nvidia

hf-lwmm convert timm/resnet101.a1_in1k resnet101.pth --to advent --backbone-only"""


@command(EXAMPLES)
@Group("push", hf_lwmm.PushOptions, "Hub", usual=("repo", "private"), key="repo")
@Group("network", hf_lwmm.NetworkOptions, "Models", skip=("network", "device", "compute_dtype"))
@click.argument("source", type=options.PLACE, help=options.MODEL)
@click.argument(
    "output", required=False, type=options.PATH, help="Folder or file to write (.safetensors, .pth, .pt, .bin, .ckpt)."
)
@option("--to", help="Code base whose names to use: transformers, nvidia, smp, advent, ...")
@option("--backbone-only", is_flag=True, help="Leave the heads out.")
@option("--license", help="License to state in place of the source's.")
@options.overwrite
@options.as_json
def convert(
    push: hf_lwmm.PushOptions | None,
    network: hf_lwmm.NetworkOptions,
    source: str,
    output: Path | None,
    to: str | None,
    backbone_only: bool,
    license: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert a model for transformers or another code base.

    --to chooses the code base. The weights are copied bit for bit.
    """
    pushed = None
    with progress_bar() as progress:
        if to is None:
            if backbone_only:
                raise hf_lwmm.PlanError("--backbone-only needs --to.")
            done = hf_lwmm.export(
                source,
                output,
                push=push or False,
                license=license,
                overwrite=overwrite,
                network=network,
                progress=progress,
            )
            said, pushed, kind = done.notes, done.pushed, type(done.loaded.model).__name__
            data: dict[str, Any] = {"source": done.loaded.label, "network": kind, "output": str(done.folder or "")}
            lines = [f"Converted to {kind}"] + ([f"Written to {done.folder}"] if done.folder else [])
        else:
            if output is None or push is not None:
                raise hf_lwmm.PlanError("--to writes a file or folder: name it after the model, and push without --to.")
            if license or network.system or network.labels:
                raise hf_lwmm.PlanError("--license, --system and --labels cannot be used with --to.")
            renamed = hf_lwmm.convert(
                source,
                output,
                to=to,
                backbone_only=backbone_only,
                branch=network.branch,
                overwrite=overwrite,
                progress=progress,
            )
            said = (*renamed.source.notes, *renamed.notes)
            before, count = renamed.source.slot_map.layout, len(renamed.tensors)
            data = {"source": renamed.source.label, "from": before, "to": renamed.layout, "tensors": count}
            data["output"] = str(output)
            lines = [f"Converted {count:,} tensors from {before} to {renamed.layout}", f"Written to {output}"]
    notes(said)
    if as_json:
        print_json({**data, "notes": list(said), "pushed": vars(pushed) if pushed else None})
    for line in lines if not as_json else ():
        say(line)
    print_pushed(pushed, quiet=as_json)
