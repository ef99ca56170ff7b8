"""Write reports to files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from hf_lwmm.errors import PlanError
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import Target, check_target
from hf_lwmm.planning.local_inputs import Input, local_inputs

SUFFIXES = (".json", ".md")


class Report(Protocol):
    """An answer that can be written as JSON or Markdown."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""

    def to_markdown(self) -> str:
        """Return tables as Markdown."""


def save_report(report: Report, target: Target | Path) -> None:
    """Write a report as JSON or Markdown, by the suffix of the file.

    Raises:
        PlanError: if it has another suffix.
        MergeError: if the file cannot be written.
    """
    path = target.path if isinstance(target, Target) else target
    _check_suffix(path)
    text = json.dumps(report.to_dict(), indent=2) if path.suffix.lower() == ".json" else report.to_markdown()
    with atomic(target) as place:
        place.write_text(text + "\n", encoding="utf-8")


def check_report_name(path: Path, *inputs: Input, overwrite: bool = False) -> Target:
    """Return the file that a report is to be written to, as `save_report` takes it, before any work is done for it.

    Args:
        path: the file; its folder must exist.
        inputs: the models, images and options that the report is about.
        overwrite: replace an existing file.

    Raises:
        PlanError: if there is no such folder, or the file is a folder or has another suffix.
        MergeError: if it exists (unless `overwrite`), or is one of the inputs, or in one, or cannot be written.
    """
    folder = path.absolute().parent
    if os.path.isdir(path) or not os.path.isdir(folder):  # noqa: PTH112  (pathlib's fails for long texts)
        raise PlanError(f"{path}: name a file, {' or '.join(SUFFIXES)}, in a folder that exists.")
    target = check_target(path, overwrite, local_inputs(*inputs))
    _check_suffix(path)
    return target


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise PlanError(f"{path}: reports are written as {' or '.join(SUFFIXES)}. Choose another name.")
