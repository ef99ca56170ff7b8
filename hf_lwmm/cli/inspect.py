"""`hf-lwmm inspect`."""

from __future__ import annotations

from dataclasses import asdict

from hf_lwmm.cli import options
from hf_lwmm.cli.terminal import note, print_json

EXAMPLES = """Examples:

hf-lwmm inspect org/a org/b

hf-lwmm inspect latest.pth --branch teacher --json"""


def inspect(models: options.Models = None, branch: options.Branch = "student", as_json: options.Json = False) -> None:
    """Tell what models are: layout, architecture, classes, dtype, parameters. Weights are not downloaded."""
    import hf_lwmm
    from hf_lwmm.errors import PlanError

    if not models:
        raise PlanError("Name at least one model: hf-lwmm inspect org/name")
    found = [hf_lwmm.inspect(model, branch=branch) for model in models]
    if as_json:
        print_json([asdict(info) for info in found])
        return
    for info in found:
        classes = (
            f"{len(info.classes)}: {', '.join(info.classes[:6])}{', ...' if len(info.classes) > 6 else ''}"
            if info.classes
            else "not stated"
        )
        print(info.model)
        for name, value in (
            ("files", ", ".join(info.files)),
            ("layout", info.layout),
            ("architecture", info.architecture),
            ("classes", classes),
            ("parameters", f"{info.parameters:,} in {info.tensors:,} tensors"),
            ("dtype", ", ".join(f"{dtype} ({count:,})" for dtype, count in info.dtypes.items())),
            ("licence", info.license or "not stated"),
        ):
            print(f"  {name:<13} {value}")
        for text in info.notes:
            note(text)
