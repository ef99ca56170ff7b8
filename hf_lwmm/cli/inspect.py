"""`hf-lwmm inspect`."""

from __future__ import annotations

from dataclasses import asdict

import hf_lwmm
from hf_lwmm.cli import options
from hf_lwmm.cli.every_command import command
from hf_lwmm.cli.terminal import notes, print_json, say

EXAMPLES = """Examples:

hf-lwmm inspect org/a org/b

hf-lwmm inspect latest.pth --branch teacher --json"""


@command(EXAMPLES)
@options.models
@options.branch
@options.as_json
def inspect(models: tuple[str, ...], branch: str, as_json: bool) -> None:
    """Describe models: layout, architecture, classes, size.

    Weights on the Hub are not downloaded.
    """
    if not models:
        raise hf_lwmm.PlanError("Name at least one model: hf-lwmm inspect org/name")
    found = [hf_lwmm.inspect(model, branch=branch) for model in models]
    if as_json:
        print_json([asdict(info) for info in found])
        return
    labels = [info.model for info in found]
    for model, info in zip(models, found, strict=True):
        say(info.model if labels.count(info.model) == 1 else model)
        for name, value in _rows(info):
            say(f"  {name:<13} {value}")
        notes(info.notes)


def _rows(info: hf_lwmm.ModelInfo) -> list[tuple[str, str]]:
    classes = "not stated"
    if info.classes:
        classes = f"{len(info.classes)}: {', '.join(info.classes[:6])}{', ...' if len(info.classes) > 6 else ''}"
    training = ", ".join(f"{name} {value}" for name, value in info.training.items())
    return [
        ("files", ", ".join(info.files)),
        ("layout", info.layout),
        ("architecture", info.architecture),
        ("classes", classes),
        ("parameters", f"{info.parameters:,} in {info.tensors:,} tensors"),
        ("dtype", ", ".join(f"{dtype} ({count:,})" for dtype, count in info.dtypes.items())),
        ("licence", info.license or "not stated"),
        *([("processor", info.image_processor)] if info.image_processor else []),
        *([("training", training)] if training else []),
    ]
