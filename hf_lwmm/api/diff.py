"""Compare two models layer by layer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect_list
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.hub import Ref, parse_ref
from hf_lwmm.planning.discrepancy import Discrepancy, check_granularity, compare
from hf_lwmm.planning.header_diff import HeaderDiff, compare_headers
from hf_lwmm.progress import Progress, silent
from hf_lwmm.publishing.plots.discrepancy import plot_discrepancy
from hf_lwmm.publishing.plots.style import inline


@dataclass(frozen=True)
class DiffReport(Discrepancy):
    """The differences of two models, which a notebook shows with a picture."""

    def _repr_html_(self) -> str:
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self.summary())
        table = "".join(f"<tr>{row}</tr>" for row in rows)
        image = inline(lambda file: plot_discrepancy(self, file))
        return f"<p><b>Discrepancy</b>: {escape(self.title())}</p><table>{table}</table>{image}"


def diff(
    first: Ref,
    second: Ref,
    *,
    taus: Sequence[float] = (10.0,),
    granularity: str = "module",
    branch: str = "student",
    progress: Progress = silent,
) -> DiffReport:
    """Compare two models, whatever layouts they are stored in, in bounded memory (paper, Figure 2).

    Args:
        first, second: references, as for `merge`; relative distances are of the first's norms.
        taus: thresholds: a tensor counts as changed when ||a - b|| >= ||a|| / tau.
        granularity: the size of a layer: module, block or stage.
        branch: network to take from a self-training checkpoint, student or teacher.

    Raises:
        AlignmentError: if the models are not networks of one architecture.
        CheckpointError: if a value is not finite.
        PlanError: for thresholds that are not positive, or another granularity.
    """
    expect_list(taus, "taus")
    check_granularity(granularity)
    with contextlib.ExitStack() as stack:
        opened = []
        for done, ref in enumerate((first, second)):
            progress("Reading headers", done, 2)
            checkpoint = open_checkpoint(hub.resolve(parse_ref(ref)), branch=branch, headers_only=True)
            stack.callback(checkpoint.close)
            opened.append(checkpoint)
        for checkpoint, other in (opened, opened[::-1]):
            atoms = checkpoint.slot_map.slots
            tensors = {atom.tensor for slot, atom in atoms.items() if slot in other.slot_map.slots}
            checkpoint.fetch(tensors, progress=progress)
        found = compare(opened[0], opened[1], taus=taus, granularity=granularity, progress=progress)
    return DiffReport(**{each.name: getattr(found, each.name) for each in fields(found)})


def diff_headers(first: Ref, second: Ref, *, branch: str = "student") -> HeaderDiff:
    """Compare two models by names, shapes and types alone; of files on the Hub only headers are read.

    Args:
        first, second: references, as for `merge`.
        branch: network to take from a self-training checkpoint, student or teacher.

    Raises:
        HfLwmmError: a subclass that says what is wrong with which model.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for ref in (first, second):
            opened.append(open_checkpoint(hub.resolve(parse_ref(ref)), branch=branch, headers_only=True))
            stack.callback(opened[-1].close)
        return compare_headers(*opened)
