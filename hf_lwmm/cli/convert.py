"""`hf-lwmm convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note, print_json, progress_bar

EXAMPLES = """Examples:

hf-lwmm convert nvidia/segformer-b5-finetuned-cityscapes-1024-1024 segformer.b5.pth --to nvidia

hf-lwmm convert latest.pth backbone.safetensors --to transformers --backbone-only

hf-lwmm convert timm/resnet101.a1_in1k resnet101.pth --to advent --backbone-only"""


def convert(
    source: Annotated[str, typer.Argument(help="Model: org/name[@revision][:file[+file]], or a local file or folder.")],
    target: Annotated[Path, typer.Argument(help="Folder or file to write (.safetensors, .pth, .pt, .bin, .ckpt).")],
    to: Annotated[str, typer.Option(help="Code base whose names to use: transformers, nvidia, smp, advent, ...")],
    backbone_only: Annotated[bool, typer.Option("--backbone-only", help="Leave the heads out.")] = False,
    weights: options.Weights = "student",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file or folder.")] = False,
    as_json: options.Json = False,
) -> None:
    """Write a model in the layout of another code base; not a bit of its weights changes."""
    import hf_lwmm

    with progress_bar() as progress:
        conversion = hf_lwmm.convert(
            source,
            target,
            to=to,
            backbone_only=backbone_only,
            weights=weights,
            overwrite=overwrite,
            progress=progress,
        )
    for text in (*conversion.source.notes, *conversion.notes):
        note(text)
    before, count = conversion.source.slot_map.layout, len(conversion.tensors)
    if as_json:
        print_json(
            {
                "source": conversion.source.label,
                "from": before,
                "to": conversion.layout,
                "tensors": count,
                "output": str(target),
                "notes": list(conversion.notes),
            }
        )
        return
    print(f"Converted {count:,} tensors from {before} to {conversion.layout}")
    print(f"Written to {target}")
