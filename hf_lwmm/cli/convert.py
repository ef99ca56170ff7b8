"""`hf-lwmm convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note, print_json
from hf_lwmm.progress import progress_bar

EXAMPLES = """Examples:

hf-lwmm convert org/daformer:latest.pth --labels cityscapes19 --push

hf-lwmm convert nvidia/segformer-b5-finetuned-cityscapes-1024-1024 segformer.b5.pth --to nvidia

hf-lwmm convert timm/resnet101.a1_in1k resnet101.pth --to advent --backbone-only"""


def convert(
    source: Annotated[str, typer.Argument(help=options.MODEL)],
    target: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="Folder or file to write (.safetensors, .pth, .pt, .bin, .ckpt).", show_default=False),
    ] = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Code base whose names to use: transformers, nvidia, smp, advent, ...", show_default=False),
    ] = None,
    push: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="[REPO]", help="Push to the Hub, to <user>/<name> if no REPO follows.", show_default=False
        ),
    ] = None,
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Licence to state instead of the source's.", show_default=False),
    ] = None,
    backbone_only: Annotated[bool, typer.Option("--backbone-only", help="Leave the heads out.")] = False,
    system: options.System = None,
    labels: options.Labels = None,
    branch: options.Branch = "student",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file or folder.")] = False,
    as_json: options.Json = False,
) -> None:
    """Write a model as a network that transformers loads, or, with --to, under the names of another code base.

    Not a bit of its weights changes.
    """
    import hf_lwmm
    from hf_lwmm.errors import PlanError

    with progress_bar() as progress:
        if to is None:
            if backbone_only:
                raise PlanError("--backbone-only goes with --to: a network has all its parts.")
            done = hf_lwmm.export(
                source,
                target,
                push=push or push is not None,
                private=private,
                create_pr=create_pr,
                license=license,
                overwrite=overwrite,
                system=system,
                labels=labels or [],
                branch=branch,
                progress=progress,
            )
            notes, pushed = done.notes, done.pushed
            network = type(done.loaded.model).__name__
            data: dict[str, Any] = {"source": done.loaded.label, "network": network, "output": str(done.folder or "")}
            lines = [f"Converted to {network}"] + ([f"Written to {done.folder}"] if done.folder else [])
        else:
            if target is None or push is not None:
                raise PlanError("--to writes a file or folder: name it after the model, and push without --to.")
            conversion = hf_lwmm.convert(
                source,
                target,
                to=to,
                backbone_only=backbone_only,
                branch=branch,
                overwrite=overwrite,
                progress=progress,
            )
            notes, pushed = (*conversion.source.notes, *conversion.notes), None
            before, count = conversion.source.slot_map.layout, len(conversion.tensors)
            data = {"source": conversion.source.label, "from": before, "to": conversion.layout, "tensors": count}
            data["output"] = str(target)
            lines = [f"Converted {count:,} tensors from {before} to {conversion.layout}", f"Written to {target}"]
    for text in notes:
        note(text)
    if as_json:
        print_json({**data, "notes": list(notes), "pushed": vars(pushed) if pushed else None})
        return
    for line in lines:
        print(line)
    if pushed and pushed.changed:
        print(f"Pushed to {pushed.pull_request or pushed.url}")
    elif pushed:
        print(f"{pushed.url} holds exactly this already; nothing was pushed.")
