"""Write a merged network as a folder: its tensors, and the anchor's files that a network needs besides them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, classifier_rows, open_checkpoint
from hf_lwmm.checkpoints.companions import (
    COMPANIONS,
    CONFIG,
    QUANTISATION,
    WEIGHTS_NAME,
    beside,
    class_count,
    companion,
    placeholders,
    with_class_names,
)
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.checkpoints.hosted import hosted_by
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.checkpoints.local_paths import without_local_paths
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.checkpoints.torch_copy import copy_with_tensors
from hf_lwmm.checkpoints.torch_sharing import check_apart
from hf_lwmm.checkpoints.torch_tensors import TorchReader
from hf_lwmm.checkpoints.unwrapping import without_pure_wrappers
from hf_lwmm.checkpoints.weight_file import WeightFile
from hf_lwmm.describing.hosting import HostedNetwork
from hf_lwmm.describing.libraries import library_of
from hf_lwmm.engine.streaming import write_merged, write_tensors
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import MergeError
from hf_lwmm.files.documents import as_mapping, parse_json
from hf_lwmm.planning.groups import QUANTISED, groups_of
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.progress import Progress, silent


def write_network(
    plan: MergePlan,
    folder: Path,
    *,
    names: Mapping[str, str] | None = None,
    writing: WriteOptions = WriteOptions(),
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the merged tensors and what stands beside the anchor's weights; return the names of the weight files.

    `names` are as for `write_merged`: `names_for_loaders` has those by which the anchor's loader finds them.

    Raises:
        MergeError: as `write_merged`.
    """
    weights = write_merged(plan, folder, names=names, writing=writing, progress=progress)
    _copy_beside(plan, folder)
    return weights


def _copy_beside(plan: MergePlan, folder: Path) -> None:
    for name, path in _beside_anchor(plan).items():
        content = hub.fetch(plan.anchor.source, path).read_bytes()
        (folder / name).write_bytes(_settings(content, name, plan) if name in COMPANIONS else content)


def write_hosted(
    plan: MergePlan,
    hosted: HostedNetwork,
    folder: Path,
    *,
    names: Mapping[str, str],
    writing: WriteOptions = WriteOptions(),
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write the merge as a repository that transformers loads; return the names of the weight files.

    `names` are as for `write_merged`; they are for a network whose tensors have the right names already.

    Raises:
        MergeError: as `write_merged`.
    """
    if hosted.conversion is None:
        weights = write_network(plan, folder, names=names, writing=writing, progress=progress)
    else:
        weights = write_tensors(
            plan.sources,
            hosted.tensors(plan),
            folder,
            allow_nonfinite=writing.allow_nonfinite,
            max_shard_size=writing.shard_bytes,
            progress=progress,
        )
        _copy_beside(plan, folder)
    for name, entries in hosted.entries.items():
        path = folder / name
        stated = as_mapping(parse_json(path.read_bytes(), name), name) if path.is_file() else {}
        text = json.dumps({**stated, **entries}, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
    for name, text in hosted.code.items():
        (folder / name).write_text(text, encoding="utf-8")
    return weights


def names_for_loaders(anchor: Checkpoint) -> Mapping[str, str]:
    """Return the names under which tensors are written so that whatever loads the anchor finds them.

    They are the names in the anchor's file, with the wrappers that were taken off. A class of transformers, for which
    there is a config.json, has no `module.` or `_orig_mod.` before its names, and gets none. Copies of a network that
    are stored in another way than by a prefix, such as the averages of mmcv, have the names of the network.
    """
    stored = anchor.stored_names
    if hosted_by(anchor.config) or not all(("." + old).endswith("." + new) for new, old in stored.items()):
        return {}
    if "model_type" not in anchor.config:
        return stored
    short = {old: new for new, old in without_pure_wrappers({old: old for old in stored.values()}).items()}
    return {new: short[old] for new, old in stored.items() if old in short}


def names_note(anchor: Checkpoint) -> tuple[str, ...]:
    """Return a note on the names that a merge's tensors get, if its anchor's were read without wrappers of theirs."""
    stored, names = anchor.stored_names, names_for_loaders(anchor)
    if all(new == old for new, old in stored.items()):
        return ()
    wrapped = next((names[new] for new in names if names[new] != new), None)
    if wrapped is not None:
        return (f"Tensors are named as in the file of {anchor.label} ({shown(wrapped)}), so that its code loads them.",)
    first = next(new for new, old in stored.items() if new != old)
    hosted = not {"architectures", "model_type"}.isdisjoint(anchor.config)
    who = "transformers names" if hosted else "their network's code names"
    other = f"not as in the file of {anchor.label} ({shown(stored[first])})"
    return (f"Tensors are named as {who} them ({shown(first)}), {other}.",)


def _beside_anchor(plan: MergePlan) -> dict[str, str]:
    """The files beside the anchor's weights that are copied: their paths by name."""
    anchor = plan.anchor
    found = {name: companion(anchor.source, anchor.folder, name) for name in (*COMPANIONS, *code_files(plan))}
    return {name: path for name, path in found.items() if path is not None}


def quantisation_note(anchor: Checkpoint) -> tuple[str, ...]:
    """Return a note if the anchor's config.json would have the floats that its weights are quantised once more."""
    if not anchor.config.get(QUANTISATION) or any(group.kind is QUANTISED for group in groups_of(anchor).groups):
        return ()
    return (
        f"{anchor.label}: its weights are floats, so {QUANTISATION} of its config.json was left out, by which "
        "transformers would quantise them when it loads them",
    )


def code_files(plan: MergePlan) -> tuple[str, ...]:
    """Return the names of the Python files beside the anchor's weights that are copied, as its network's own code.

    The code is copied and never run.
    """
    if "auto_map" not in plan.anchor.config:
        return ()
    found = (PurePosixPath(name) for name in plan.anchor.source.files if name.endswith(".py"))
    return tuple(path.name for path in found if path == PurePosixPath(plan.anchor.folder) / path.name)


def _settings(content: bytes, name: str, plan: MergePlan) -> bytes:
    """A file of the anchor's settings, as it is if nothing in it has to change.

    It has no paths of somebody's machine, and no secrets. The configuration names no file of weights, the dtype that is
    written, as many classes as the classifier has rows, and no scheme of quantisation for weights that are none.
    """
    stated = as_mapping(parse_json(content, name), name)
    settings: dict[str, Any] = without_local_paths(stated)
    if name == CONFIG:
        settings.pop(WEIGHTS_NAME, None)
        if quantisation_note(plan.anchor):
            settings.pop(QUANTISATION)
        settings = _with_a_class_a_row(settings, plan.anchor)
        if plan.knobs.dtype is not None and library_of(stated) is None:  # others pass it on as an argument
            settings["torch_dtype" if "torch_dtype" in settings else "dtype"] = plan.knobs.dtype
    return content if settings == stated else (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()


def _with_a_class_a_row(config: dict[str, Any], anchor: Checkpoint) -> dict[str, Any]:
    """The content of a config.json, which names a class for each row of the classifier if it said another number."""
    if "id2label" not in anchor.config:
        config = {name: value for name, value in config.items() if name not in ("id2label", "label2id")}
    rows = classifier_rows(anchor.slot_map)
    if rows is None or class_count(config) in (None, rows):
        return config
    return with_class_names(config, anchor.classes or placeholders(rows))


def check_format(plan: MergePlan, writing: WriteOptions) -> None:
    """Refuse the format "torch" where the anchor has no torch files, or more would change in them than values.

    Raises:
        MergeError: saying what, from headers alone.
    """
    if writing.format != "torch":
        return
    if not all(isinstance(p.reader, TorchReader) and not p.name.endswith(".safetensors") for p in plan.anchor.parts):
        raise MergeError(
            f"--format torch copies the anchor's torch file, but {plan.anchor.label} has none. Leave it out, or choose "
            "another anchor."
        )
    if plan.knobs.dtype is not None:
        raise MergeError(f"--format torch keeps the anchor's types; leave out --dtype {plan.knobs.dtype}.")
    for part in plan.anchor.parts:
        assert isinstance(part.reader, TorchReader)
        check_apart(part.reader, _changing(part))


def _changing(part: WeightFile) -> list[str]:
    """The tensors of a file that may get other values; integers, such as BatchNorm's counters, never do."""
    return [name for name, info in part.tensors.items() if is_float(info.dtype)]


def as_anchor_files(plan: MergePlan, folder: Path, weights: Sequence[str]) -> tuple[str, ...]:
    """Put merged weights into copies of the anchor's torch files, in the place of the files that have them now.

    `check_format` has found no hindrance, and the anchor's files are on this machine.

    The copies have the names that they have in the anchor's repository, folders and all, and what stands beside the
    anchor's files stands beside the copies.

    Returns:
        The names of the new files of weights.

    Raises:
        CheckpointError: if they cannot be read any more.
    """
    merged = open_checkpoint(hub.resolve(hub.parse_ref(folder)), branch=None)
    names = []
    try:
        for part in plan.anchor.parts:
            assert isinstance(part.reader, TorchReader)
            (folder / part.name).parent.mkdir(parents=True, exist_ok=True)
            copy_with_tensors(part.reader, _changing(part), merged.reader, folder / part.name)
            names.append(part.name)
    finally:
        merged.close()
    for name in weights:
        (folder / name).unlink()
    for name in plan.anchor.source.files:
        here = name == beside(plan.anchor.folder, PurePosixPath(name).name)
        if len(names) > 1 and here and name.endswith(f".bin{INDEX_SUFFIX}"):
            (folder / name).write_bytes(hub.fetch(plan.anchor.source, name).read_bytes())
            names.append(name)
    for name in _beside_anchor(plan):
        (folder / name).rename(folder / beside(plan.anchor.folder, name))
    return tuple(names)
