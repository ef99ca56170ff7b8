"""Compare two models layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from html import escape
from typing import TYPE_CHECKING, Any

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect_list
from hf_lwmm.api.plan import opened_together
from hf_lwmm.errors import naming_extras
from hf_lwmm.hub import Ref, parse_ref
from hf_lwmm.planning.advice import Advice, advise, known_of
from hf_lwmm.planning.bn_distance import bn_distance
from hf_lwmm.planning.discrepancy import Discrepancy, check_granularity, compare
from hf_lwmm.planning.header_diff import HeaderDiff, compare_headers
from hf_lwmm.plots.discrepancy import plot_discrepancy
from hf_lwmm.plots.style import Plot
from hf_lwmm.progress import Progress, silent

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class DiffReport(Discrepancy):
    """The differences of two models and how to merge them, which a notebook shows with a picture."""

    advice: Advice | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with None where a figure is not defined."""
        return {**super().to_dict(), "advice": self.advice and self.advice.to_dict()}

    def title(self) -> str:
        """Return the comparison in a few sentences, the last of which is advice."""
        return " ".join([super().title(), *([self.advice.line] if self.advice else [])])

    def plot(self) -> Plot:
        """Draw the distance of the models over depth, as `plot_discrepancy`."""
        return Plot.of(lambda file: plot_discrepancy(self, file))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each compared tensor, in depth order, with a column `changed` for each tau.

        Raises:
            ExtraError: if pandas is not installed.
        """
        with naming_extras("A data frame"):
            import pandas
        rows = self.to_dict()["tensors"]
        for row in rows:
            row |= {f"changed (tau {tau:g})": each for tau, each in zip(self.taus, row.pop("changed"), strict=True)}
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self.summary())
        table = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<p><b>Discrepancy</b>: {escape(self.title())}</p><table>{table}</table>{self.plot().to_html()}"


def diff(
    first: Ref,
    second: Ref,
    *,
    taus: Sequence[float] = (10.0,),
    granularity: str = "module",
    branch: str = "student",
    target: str | None = None,
    base: Ref | None = None,
    progress: Progress = silent,
) -> DiffReport:
    """Compare two models, whatever layouts they are stored in, in bounded memory (paper, Figure 2).

    Args:
        first, second: references, as for `merge`; relative distances are of the first's norms.
        taus: thresholds: a tensor counts as changed when ||a - b|| >= ||a|| / tau.
        granularity: the size of a layer: module, block or stage.
        branch: network to take from a self-training checkpoint, student or teacher.
        target: what a merge of the two would be for: the first's domain (anchor), a mixture of both (mixed), or a new
            one. The advice rests on it.
        base: the pre-training that both come from, for advice; that it is there is all that is looked at.

    Raises:
        AlignmentError: if the models are not networks of one architecture.
        CheckpointError: if a value is not finite.
        PlanError: for thresholds that are not positive, another granularity, or another target.
    """
    expect_list(taus, "taus")
    check_granularity(granularity)
    if base is not None:
        hub.resolve(parse_ref(base))
    with opened_together([(parse_ref(ref), branch) for ref in (first, second)], progress=progress) as opened:
        known = known_of(opened, 0, target, has_base=base is not None)
        for checkpoint, other in (opened, opened[::-1]):
            atoms = checkpoint.slot_map.slots
            tensors = {atom.tensor for slot, atom in atoms.items() if slot in other.slot_map.slots}
            checkpoint.fetch(tensors, progress=progress)
        found = compare(opened[0], opened[1], taus=taus, granularity=granularity, progress=progress)
        distance = bn_distance(opened, 0, (tensor.slot for tensor in found.tensors))
    advice = advise(replace(known, bn_distance=distance))
    return DiffReport(**{each.name: getattr(found, each.name) for each in fields(found)}, advice=advice)


def diff_headers(first: Ref, second: Ref, *, branch: str = "student") -> HeaderDiff:
    """Compare two models by names, shapes and types alone; of files on the Hub only headers are read.

    Args:
        first, second: references, as for `merge`.
        branch: network to take from a self-training checkpoint, student or teacher.

    Raises:
        HfLwmmError: a subclass that says what is wrong with which model.
    """
    with opened_together([(parse_ref(ref), branch) for ref in (first, second)]) as opened:
        return compare_headers(*opened)
