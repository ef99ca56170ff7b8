"""Write the files of a merge, all but its card and scores, and record them in its recipe."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from hf_lwmm import hub
from hf_lwmm.api.push import files_in
from hf_lwmm.describing.hosting import HostedNetwork
from hf_lwmm.engine.network_folder import as_anchor_files, names_for_loaders, write_hosted, write_network
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import naming_extras, noting
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.syncing import sync_all
from hf_lwmm.hub.concurrently import in_background
from hf_lwmm.planning.file_options import FileOptions
from hf_lwmm.planning.images import ImageProvenance, naming_options
from hf_lwmm.planning.inputs import MergeInputs
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.pretraining import pretraining_warnings
from hf_lwmm.plots.layers import plot_layer_weights
from hf_lwmm.progress import Progress
from hf_lwmm.publishing.rendering import template
from hf_lwmm.publishing.superseded import LAYER_PLOT
from hf_lwmm.recipes.recipe import FILE_NAME, Recipe, recipe_of

InputHashes: TypeAlias = tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Written:
    """A merge in its folder: its plan with what was decided about running statistics, and notes on that decision.

    `doubts` are warnings about models of different pre-training.
    """

    plan: MergePlan
    recipe: Recipe
    notes: tuple[str, ...]
    doubts: tuple[str, ...]


def write_model(
    ready: MergePlan,
    hosted: HostedNetwork | None,
    folder: Path,
    inputs: MergeInputs,
    writing: WriteOptions,
    evaluation: EvaluationSpec,
    undrawn: list[str],
    progress: Progress,
    hashing: Future[InputHashes],
) -> Written:
    """Write the merged tensors and everything beside them that makes a model repository, but the card.

    A note is added to `undrawn` if the plot cannot be drawn. `hashing` is what `hash_inputs` has begun.
    """
    # A copy of the anchor's torch file has its names anyway.
    names = {} if writing.format == "torch" else names_for_loaders(ready.anchor)
    if hosted is not None:
        weights = write_hosted(ready, hosted, folder, names=names, writing=writing, progress=progress)
        names = hosted.names or names
    else:
        weights = write_network(ready, folder, names=names, writing=writing, progress=progress)
    ready, bn_images, bn_notes = _recalibrated(ready, folder, names, inputs, evaluation, progress)
    if writing.format == "torch":
        weights = as_anchor_files(ready, folder, weights)
    synced = in_background(lambda: _sync(folder, weights))
    outputs = in_background(lambda: hub.file_hashes({name: folder / name for name in weights}))
    # The rest keeps the interpreter busy. That would hold up the merge, whose threads need it for each chunk, but
    # not hashing and syncing, which hardly need it.
    beside = hub.file_hashes({name: folder / name for name in files_in(folder) if name not in weights})
    with noting(f"{LAYER_PLOT} was not drawn", undrawn):
        if (picture := _drawn(ready)) is not None:
            (folder / LAYER_PLOT).parent.mkdir(exist_ok=True)  # the anchor's file may lie in a folder of this name
            (folder / LAYER_PLOT).write_bytes(picture)
    unlike = pretraining_warnings(ready)
    template("card")
    synced.result()
    hashes = hashing.result()
    for checkpoint in ready.sources:
        checkpoint.check_unchanged()  # of other content than that which was merged, the hashes would be wrong
    recipe = recipe_of(
        ready,
        hashes,
        outputs.result(),
        beside=beside,
        recorded=tuple(tuple(checkpoint.recorded) for checkpoint in ready.sources),
        files=FileOptions(writing.format, writing.max_shard_size),
        bn_images=bn_images,
        system=_system(ready, hosted, bn_images, inputs),
    )
    (folder / FILE_NAME).write_text(recipe.to_yaml(), encoding="utf-8")
    return Written(ready, recipe, bn_notes, unlike)


def hash_inputs(ready: MergePlan) -> Future[InputHashes]:
    """Begin to hash the files that a merge reads, and return for each model the SHA-256 of its files to be, by name.

    Of files that are not on this machine as a whole they are those that the Hub records.
    """
    paths = {(index, name): path for index, each in enumerate(ready.sources) for name, path in each.paths.items()}
    found: list[dict[str, str]] = [dict(each.recorded) for each in ready.sources]

    def hashed() -> InputHashes:
        for (index, name), digest in hub.file_hashes(paths).items():
            found[index][name] = digest
        return tuple(found)

    return in_background(hashed)


def _drawn(plan: MergePlan) -> bytes | None:
    """The plot of the layer weights as a PNG; None if the method has none, or matplotlib is not installed."""
    if plan.layer_weights is None or not find_spec("matplotlib"):
        return None
    plot_layer_weights(plan, file := io.BytesIO())
    return file.getvalue()


def _system(
    ready: MergePlan, hosted: HostedNetwork | None, bn_images: ImageProvenance | None, inputs: MergeInputs
) -> str | None:
    """The code base of a DeepLabV2, if its configuration rests on it, or what was estimated with a network."""
    if hosted is not None and hosted.system is not None:
        return hosted.system
    return inputs.network.system if ready.tuning or bn_images else None


def _sync(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        sync_all(folder / name)


def _recalibrated(
    ready: MergePlan,
    folder: Path,
    names: Mapping[str, str],
    inputs: MergeInputs,
    evaluation: EvaluationSpec,
    progress: Progress,
) -> tuple[MergePlan, ImageProvenance | None, tuple[str, ...]]:
    """Estimate BatchNorm's statistics in the files written with these names if they are to be.

    Returns:
        The plan with the part of the estimates that went in, the images that they are of, and notes. Where the merged
        statistics were kept, the plan is one that merges them, and there are no images.
    """
    if ready.knobs.bn_stats != "recalibrate":
        return ready, None, ()
    with naming_extras("--bn-stats recalibrate", images=True):
        from hf_lwmm.calibration.batchnorm import recalibrate

    assert inputs.bn_images is not None
    with naming_options("bn"):
        found = recalibrate(
            ready,
            folder,
            inputs.bn_images,
            names=names,
            network=inputs.network,
            evaluation=evaluation,
            progress=progress,
        )
    if found.mix == 0:
        return replace(ready, knobs=replace(ready.knobs, bn_stats="linear", bn_mix=None)), None, found.notes
    return replace(ready, knobs=replace(ready.knobs, bn_mix=found.mix)), found.images, found.notes
