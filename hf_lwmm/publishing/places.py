"""Find places for plots before any work is done for them; the function for reports stands beside those that write them.

In each function, `inputs` are the models, images and options that the plots are about. A MergeError says that a file
exists (unless `overwrite`), or that a place is one of the inputs, is in one, or cannot be written to.
"""

from __future__ import annotations

from pathlib import Path

from hf_lwmm.evaluation.spec import EXAMPLE_NAMES
from hf_lwmm.files.targets import Target, TargetFolder, check_target, check_target_folder
from hf_lwmm.planning.local_inputs import Input, local_inputs
from hf_lwmm.plots import sweeps
from hf_lwmm.plots.style import checked_name
from hf_lwmm.publishing import score_plots


def check_picture_name(path: str | Path, *inputs: Input, overwrite: bool = False) -> Target:
    """Return the file that a plot is to be drawn into.

    Raises:
        PlotError: for a suffix other than .png, .svg and .pdf, or a folder that does not exist.
        MergeError: see above.
    """
    return check_target(checked_name(path), overwrite, local_inputs(*inputs))


def check_score_plots(folder: str | Path, *inputs: Input, overwrite: bool = False) -> TargetFolder:
    """Return the folder for `save_score_plots` and `save_examples`. Raises MergeError, see above."""
    return _folder(folder, (*score_plots.NAMES, *EXAMPLE_NAMES), inputs, overwrite)


def check_sweep_plots(folder: str | Path, *inputs: Input, overwrite: bool = False) -> TargetFolder:
    """Return the folder for `save_sweep_plots`. Raises MergeError, see above."""
    return _folder(folder, sweeps.NAMES, inputs, overwrite)


def _folder(folder: str | Path, names: tuple[str, ...], inputs: tuple[Input, ...], overwrite: bool) -> TargetFolder:
    found = check_target_folder(Path(folder), overwrite, local_inputs(*inputs))
    found.check_free(*names)
    return found
