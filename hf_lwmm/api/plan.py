"""Decide a merge: from references to a plan, first from headers alone, then over tensors that can be read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect, expect_list
from hf_lwmm.checkpoints.checkpoint import Checkpoint, fetch_together, open_checkpoint, with_labels
from hf_lwmm.describing.promised_parts import lacking_warning
from hf_lwmm.errors import PlanError, naming_extras
from hf_lwmm.hub import ModelRef, Ref, parse_ref
from hf_lwmm.hub.concurrently import concurrently
from hf_lwmm.labels import read_label_set
from hf_lwmm.layouts import is_bn_stat
from hf_lwmm.methods.auto import Auto
from hf_lwmm.options import did_you_mean
from hf_lwmm.planning.advice import advise, known_of, resolved
from hf_lwmm.planning.bn_distance import bn_distance, bn_warnings
from hf_lwmm.planning.duplicates import duplicate_warnings
from hf_lwmm.planning.inputs import MergeInputs, NetworkOptions
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.permutation import permute_to_anchor
from hf_lwmm.planning.plan import MergePlan, make_plan
from hf_lwmm.planning.preparation import preparation_warnings
from hf_lwmm.planning.tensor_order import TensorOrder
from hf_lwmm.planning.tensor_recipes import tensors_read
from hf_lwmm.plots.layers import plot_layer_weights
from hf_lwmm.plots.style import Plot
from hf_lwmm.progress import Progress, silent

if TYPE_CHECKING:
    import pandas

_SHORT_COMMIT = re.compile("[0-9a-f]{7,40}")  # as labels have it


@dataclass(frozen=True, repr=False)
class PlanReport(MergePlan):
    """A plan that draws itself, and is a table of pandas. `warnings` are what to know before it is carried out."""

    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, with its warnings."""
        return {**super().to_dict(), "warnings": list(self.warnings)}

    def plot(self) -> Plot:
        """Draw the layer weights over depth, as `plot_layer_weights`.

        Raises:
            PlotError: if the method has no layer weights, or they are undecided.
        """
        return Plot.of(lambda file: plot_layer_weights(self, file))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each shared slot, in depth order, with the weight of each model in a column of its name.

        A weight is missing where a model takes no part, or the method has no such weights.

        Raises:
            ExtraError: if pandas is not installed.
        """
        with naming_extras("A data frame"):
            import pandas
        rows = self.to_dict()["shared"]
        table = [
            {
                **{name: row[name] for name in ("position", "slot", "shape")},
                **{label: (row["weights"] or {}).get(label) for label in self.labels},
            }
            for row in rows
        ]
        return pandas.DataFrame(table)


def plan(
    models: Sequence[Ref],
    anchor: Ref | None = None,
    *,
    knobs: Knobs = Knobs(),
    inputs: MergeInputs = MergeInputs(),
    progress: Progress = silent,
) -> PlanReport:
    """Decide a merge without carrying it out. Of files on the Hub only headers are read.

    Running statistics of models on this machine are compared. Layer weights that a method decides on images stay
    undecided, unless `inputs.tuning` has them. The plan's checkpoints are closed: it says what would be merged, and
    `merge` does it.

    Args:
        models: two or more references (`org/name[@revision][:file]`, a local file or folder); one is enough for a
            method that interpolates with the base.
        anchor: the one of them that gives task, head and layout; the first if None.
        knobs: the choices of the merge.
        inputs: base, measurements and known layer weights, for methods that need them, and what the merge is for.

    Raises:
        HfLwmmError: a subclass that says what is wrong with which model.
    """
    expect(knobs, Knobs, "knobs")
    expect(inputs, MergeInputs, "inputs")
    check_network(inputs, knobs)
    with planned(models, anchor, knobs, inputs, progress) as decided:
        # Units that a merge moves move their statistics with them.
        if not decided.permutes and not any(checkpoint.recorded for checkpoint in decided.sources):
            decided = with_bn_distance(decided)
        found = {each.name: getattr(decided, each.name) for each in fields(decided)}
        return PlanReport(**found, warnings=(*warnings_of(decided), *decided.alignment.notes))


def warnings_of(decided: MergePlan) -> tuple[str, ...]:
    """Return warnings on models that are one, on what they do not have in common, and on what the anchor lacks."""
    prepared = preparation_warnings(decided.checkpoints, decided.alignment.anchor)
    return (
        *duplicate_warnings(decided),
        *prepared,
        *bn_warnings(decided.advice, [decided.knobs.bn_stats]),
        *lacking_warning(decided.anchor),
    )


def check_network(inputs: MergeInputs, knobs: Knobs) -> None:
    """Refuse network options when no network is run, and those that a merge takes from its knobs. Raises PlanError."""
    traced = {"network"} if knobs.order == "traced" else set()
    changed = inputs.network.changed()
    for name in ("labels", "branch"):
        if name in changed:
            raise PlanError(f"inputs.network.{name}: a merge takes it from its knobs, as Knobs({name}=...).")
    if not any((inputs.tune_images, inputs.bn_images, inputs.eval_images, inputs.tuning)):
        for name in changed.keys() - {"system"} - traced:  # a configuration may rest on the system
            needed = "--order traced, " * (name == "network") + "--eval-data, --tune-data or --bn-data"
            raise PlanError(f"{inputs.network.flag(name)} needs {needed}.")


@contextlib.contextmanager
def planned(
    models: Sequence[Ref], anchor: Ref | None, knobs: Knobs, inputs: MergeInputs, progress: Progress
) -> Iterator[MergePlan]:
    """Return a context with the plan of a merge, made from headers alone, or after a full download.

    Raises:
        HfLwmmError: if a model cannot be read, or the models cannot be merged so.
    """
    refs = read_models(models, knobs, inputs)
    index = anchor_index(refs, anchor)
    wanted: list[tuple[ModelRef, str | None]] = [(ref, knobs.branch) for ref in refs]
    wanted += [(parse_ref(inputs.base), "student")] if inputs.base else []
    wanted += [(parse_ref(ref), None) for ref in inputs.measurements]
    with opened_together(wanted, headers_only=not inputs.full_download, progress=progress) as opened:
        for checkpoint in opened[: len(refs)]:
            _ = checkpoint.processor  # one that cannot be read is known before anything is merged
        _check_commit(anchor, opened[index])
        checkpoints, rest = _labelled(opened[: len(refs)], knobs, inputs), opened[len(refs) :]
        base, measurements = (rest[0], rest[1:]) if inputs.base else (None, rest)
        known = known_of(checkpoints, index, inputs.target, has_base=base is not None)
        advice = advise(replace(known, asked=knobs.method == Auto()))
        chosen = replace(knobs, method=resolved(knobs.method, advice))
        order = inputs.order or traced(checkpoints[index], knobs, inputs.network)
        yield replace(make_plan(checkpoints, index, chosen, base, measurements, inputs.tuning, order), advice=advice)


def traced(anchor: Checkpoint, knobs: Knobs, network: NetworkOptions) -> TensorOrder | None:
    """Return the order in which the anchor's network uses its slots, None if the knobs do not ask for it.

    Raises:
        HfLwmmError: if there is no network for it, or none that runs on a picture alone.
    """
    if knobs.order != "traced":
        return None
    with naming_extras("--order traced"):
        from hf_lwmm.networks.tracing import traced_order

    return traced_order(anchor, replace(network, labels=knobs.labels))


@contextlib.contextmanager
def opened_together(
    wanted: Sequence[tuple[ModelRef, str | None]], *, headers_only: bool = True, progress: Progress = silent
) -> Iterator[list[Checkpoint]]:
    """Return a context with the checkpoints of references and branches, under names that tell them apart.

    Raises:
        HfLwmmError: the first error, if a checkpoint cannot be opened.
    """

    def opener(ref: ModelRef, branch: str | None, name: str) -> Callable[[], Checkpoint]:
        return lambda: open_checkpoint(replace(hub.resolve(ref), name=name), branch=branch, headers_only=headers_only)

    opened, failed = list[Checkpoint](), None
    names = hub.telling_names([ref for ref, _ in wanted])
    try:
        openers = [opener(ref, branch, name) for (ref, branch), name in zip(wanted, names, strict=True)]
        for outcome in concurrently(openers):
            progress("Reading headers", len(opened), len(wanted))
            if (error := outcome.exception()) is None:
                opened.append(outcome.result())
            else:
                failed = failed or error
        if failed is not None:
            raise failed
        yield opened
    finally:
        for checkpoint in opened:
            checkpoint.close()


def fetched(decided: MergePlan, progress: Progress, *, whole: bool = False, whole_anchor: bool = False) -> MergePlan:
    """Fetch what the merge of a plan reads, only now that the plan holds, and permute models if it says so.

    With `whole`, whole files are downloaded; with `whole_anchor`, the anchor's are.
    """
    remote = any(checkpoint.recorded for checkpoint in decided.sources)
    in_part: list[tuple[Checkpoint, frozenset[str]]] = []
    for checkpoint, tensors in zip(decided.sources, tensors_read(decided), strict=True) if remote else ():
        needed = tensors | _bn_tensors(decided, checkpoint)
        if whole or (whole_anchor and checkpoint is decided.anchor):
            checkpoint.fetch(needed, whole=True, progress=progress)
        else:
            in_part.append((checkpoint, needed))
    fetch_together(in_part, progress)
    return _permuted(decided, progress) if decided.permutes else decided


def _bn_tensors(decided: MergePlan, checkpoint: Checkpoint) -> frozenset[str]:
    """The tensors of shared running statistics, which are compared even where they are not merged."""
    slots = checkpoint.slot_map.slots if checkpoint in decided.checkpoints else {}
    return frozenset(slots[slot].tensor for slot in decided.positions if is_bn_stat(slot) and slot in slots)


def with_bn_distance(ready: MergePlan) -> MergePlan:
    """Return the plan with advice that knows how far the models' running statistics lie apart."""
    if ready.advice is None or not ready.advice.known.has_bn_stats:
        return ready
    distance = bn_distance(ready.checkpoints, ready.alignment.anchor, ready.positions)
    return replace(ready, advice=advise(replace(ready.advice.known, bn_distance=distance)))


def _permuted(ready: MergePlan, progress: Progress) -> MergePlan:
    """The plan over models whose units stand where the anchor's do."""
    alignment = ready.alignment
    checkpoints = permute_to_anchor(ready.checkpoints, alignment.anchor, alignment.shared, progress=progress)
    return replace(ready, checkpoints=checkpoints)


def _labelled(checkpoints: Sequence[Checkpoint], knobs: Knobs, inputs: MergeInputs) -> list[Checkpoint]:
    """The checkpoints with the classes that --labels gives to those that name none.

    A set that fits none may name the outputs of a network of the user's own.
    """
    sets = [read_label_set(labels) for labels in knobs.labels]
    labelled = [with_labels(checkpoint, sets) for checkpoint in checkpoints]
    for labels in sets if inputs.network.network is None else ():
        if all(checkpoint.classes != labels.classes for checkpoint in labelled):
            raise PlanError(
                f"--labels {labels.name} ({len(labels.classes)} classes) fits no model: none has a classifier with as "
                "many rows and no class names of its own. `hf-lwmm inspect` shows them."
            )
    return labelled


def read_models(models: Sequence[Ref], knobs: Knobs, inputs: MergeInputs) -> list[ModelRef]:
    """Return the references of the models to merge. Raises PlanError for fewer than the method takes."""
    expect_list(models, "models")
    interpolates = knobs.method.interpolates or (knobs.method == Auto() and inputs.base is not None)
    if len(models) < (1 if interpolates else 2):
        raise PlanError("Merging needs at least two models. Name them all: hf-lwmm merge org/a org/b --anchor org/a")
    return [parse_ref(model) for model in models]


def anchor_index(refs: Sequence[ModelRef], anchor: Ref | None) -> int:
    """Return the index of the anchor among the models, 0 if none is named.

    Raises:
        PlanError: if the anchor is not one of the models, or fits several.
    """
    if anchor is None:
        return 0
    known = list(enumerate(refs))
    shown = str(anchor).strip()
    found = [i for i, ref in known if ref == anchor or shown == str(ref)]
    if not found and shown.isascii() and shown.isdecimal() and 1 <= int(shown) <= len(refs):
        return int(shown) - 1
    if not found and (ends := [i for i, ref in known if shown == ref.shown or _ends_with(ref, shown)]):
        if len(ends) > 1:
            raise PlanError(_ambiguous(anchor))
        found = ends
    if not found:
        wanted = parse_ref(anchor)
        found = [i for i, ref in known if ref == wanted or str(ref) == str(wanted) or _is_same(ref, wanted)]
        loose = [i for i, ref in known if not found and _may_be(ref, wanted)]
        if len(loose) > 1:
            raise PlanError(_ambiguous(anchor))
        found = found or loose
    if not found:
        raise PlanError(_not_among(anchor, refs))
    return found[0]


def _not_among(anchor: Ref, refs: Sequence[ModelRef]) -> str:
    names = [str(ref) for ref in refs]
    return f"The anchor {anchor} is not among the models: {', '.join(names)}.{did_you_mean(str(anchor), names)}"


def _ambiguous(anchor: Ref) -> str:
    return f"The anchor {anchor} fits several models; give its number among them, from 1, or its name and revision."


def _ends_with(ref: ModelRef, shown: str) -> bool:
    """True for a local path that ends with these parts, as it does in labels."""
    parts = PurePath(shown).parts
    return ref.path is not None and not ref.files and bool(parts) and ref.path.resolve().parts[-len(parts) :] == parts


def _may_be(ref: ModelRef, wanted: ModelRef) -> bool:
    """True for a model of the Hub that `wanted` may name: its repository, or the beginning of a commit of it."""
    if wanted.repo_id is None or ref.repo_id != wanted.repo_id:
        return False
    if wanted.revision is None:
        return not wanted.files
    return _SHORT_COMMIT.fullmatch(wanted.revision) is not None and ref.files == wanted.files


def _check_commit(anchor: Ref | None, opened: Checkpoint) -> None:
    """Refuse an anchor that is named by the beginning of another commit than the model's."""
    if anchor is None or opened.source.sha is None or not str(anchor).startswith(f"{opened.source.ref.repo_id}@"):
        return
    named = parse_ref(anchor).revision or ""
    if named != opened.source.ref.revision and not opened.source.sha.startswith(named):
        raise PlanError(_not_among(anchor, [opened.source.ref]))


def _is_same(ref: ModelRef, other: ModelRef) -> bool:
    """True for two names of one place of this machine."""
    if ref.path is None or other.path is None or ref.files != other.files:
        return False
    return ref.path.resolve() == other.path.resolve()
