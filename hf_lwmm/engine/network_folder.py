"""Write a merged network as a folder: its tensors, and the anchor's files that a network needs besides them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.checkpoints.companions import COMPANIONS, CONFIG, WEIGHTS_NAME, beside, companion
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.checkpoints.torch_copy import copy_with_tensors
from hf_lwmm.checkpoints.torch_sharing import check_apart
from hf_lwmm.checkpoints.torch_tensors import TorchReader
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import MergeError
from hf_lwmm.files.documents import as_mapping, parse_json
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.progress import Progress, silent


def write_network(
    plan: MergePlan, folder: Path, *, writing: WriteOptions = WriteOptions(), progress: Progress = silent
) -> tuple[str, ...]:
    """Write the merged tensors and what stands beside the anchor's weights; return the names of the weight files.

    Raises:
        MergeError: as `write_merged`.
    """
    weights = write_merged(plan, folder, writing=writing, progress=progress)
    for name, path in _beside_anchor(plan).items():
        content = hub.fetch(plan.anchor.source, path).read_bytes()
        (folder / name).write_bytes(_config(content, plan) if name == CONFIG else content)
    return weights


def _beside_anchor(plan: MergePlan) -> dict[str, str]:
    """The files beside the anchor's weights that are copied: their paths by name."""
    anchor = plan.anchor
    found = {name: companion(anchor.source, anchor.folder, name) for name in (*COMPANIONS, *code_files(plan))}
    return {name: path for name, path in found.items() if path is not None}


def code_files(plan: MergePlan) -> tuple[str, ...]:
    """Return the names of the Python files beside the anchor's weights that are copied, as its network's own code.

    The code is copied and never run.
    """
    if "auto_map" not in plan.anchor.config:
        return ()
    found = (PurePosixPath(name) for name in plan.anchor.source.files if name.endswith(".py"))
    return tuple(path.name for path in found if path == PurePosixPath(plan.anchor.folder) / path.name)


def _config(content: bytes, plan: MergePlan) -> bytes:
    """The anchor's configuration, without a path of somebody's machine or a name of its weights, and with the dtype."""
    config: dict[str, Any] = dict(as_mapping(parse_json(content, CONFIG), CONFIG))
    left_out = [name for name in ("_name_or_path", WEIGHTS_NAME) if config.pop(name, None) is not None]
    changed = bool(left_out)
    if plan.knobs.dtype is not None:
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        changed |= config.get(key) != plan.knobs.dtype
        config[key] = plan.knobs.dtype
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode() if changed else content


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
        check_apart(part.reader, part.tensors)


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
            copy_with_tensors(part.reader, part.tensors, merged.reader, folder / part.name)
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
