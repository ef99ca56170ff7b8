"""Find places for what commands write beside their answers, before any work is done for it."""

from __future__ import annotations

from pathlib import Path

import hf_lwmm
from hf_lwmm.files.targets import Target, TargetFolder, check_target, check_target_folder
from hf_lwmm.planning.local_inputs import Input, local_inputs


def report(path: Path | None, overwrite: bool, *inputs: Input) -> Target | None:
    """Return the place of a report of models, images and options, None for none. Raises PlanError or MergeError."""
    return hf_lwmm.check_report_name(path, *inputs, overwrite=overwrite) if path is not None else None


def picture(path: Path | None, overwrite: bool, *inputs: Input) -> Target | None:
    """Return the place of a plot of the inputs, None for none. Raises PlotError or MergeError."""
    if path is None:
        return None
    return check_target(hf_lwmm.check_picture_name(path), overwrite, local_inputs(*inputs))


def pictures(path: Path | None, names: tuple[str, ...], overwrite: bool, *inputs: Input) -> TargetFolder | None:
    """Return the folder of plots of the inputs, whose names are among the patterns `names`; None for none.

    Raises:
        MergeError: if it holds files of such names (unless `overwrite`), or cannot be written into.
    """
    if path is None:
        return None
    folder = check_target_folder(path, overwrite, local_inputs(*inputs))
    folder.check_free(*names)
    return folder


def check_not_read(path: Path | None, recipe: Path | None) -> None:
    """Refuse an output that is the recipe which it is made by; a folder that the recipe lies in may be made again.

    Raises:
        MergeError: naming both.
    """
    if path is not None and recipe is not None and path.is_file():
        check_target(path, True, [recipe])
