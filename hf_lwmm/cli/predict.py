"""`hf-lwmm predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note, print_json, warn
from hf_lwmm.progress import progress_bar

EXAMPLES = """Examples:

hf-lwmm predict org/merged street.jpg

hf-lwmm predict org/daformer:latest.pth photos/ --labels cityscapes19 --output seen"""


def predict(
    model: Annotated[str, typer.Argument(help=options.MODEL)],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    output: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("predictions"),
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the colours over the picture.")] = 0.6,
    system: options.System = None,
    labels: options.Labels = None,
    branch: options.Branch = "student",
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Segment pictures: a colour overlay, a label PNG and, of panoptic models, a segment PNG for each."""
    import hf_lwmm
    from hf_lwmm.evaluation.overlays import predict as run

    loaded = hf_lwmm.load(model, system=system, labels=labels or [], branch=branch, device=device)
    for text in loaded.notes:
        note(text)
    with progress_bar() as progress:
        found = run(loaded, pictures, output, opacity=opacity, progress=progress)
    for path, reason in found.failed:
        warn(f"{path}: skipped: {reason}")
    if as_json:
        done = [{"picture": str(d.picture), "files": list(map(str, d.files)), "classes": d.parts} for d in found.done]
        failed = [{"picture": str(path), "reason": reason} for path, reason in found.failed]
        print_json({"predictions": done, "skipped": failed})
    else:
        for one in found.done:
            most = ", ".join(f"{name} {part:.0%}" for name, part in list(one.parts.items())[:4])
            print(f"{one.picture}: {most} -> {one.files[0]}")
    if found.failed:
        note(f"{len(found.failed)} of {len(found.failed) + len(found.done)} pictures could not be read.")
        raise typer.Exit(1)
