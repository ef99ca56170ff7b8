"""Write a merged network as a folder: its tensors, and the anchor's files that a network needs besides them."""

from __future__ import annotations

import json
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.progress import Progress, silent

_COMPANIONS = ("config.json", "preprocessor_config.json")


def write_network(
    plan: MergePlan, folder: Path, *, writing: WriteOptions = WriteOptions(), progress: Progress = silent
) -> tuple[str, ...]:
    """Write the merged tensors and the anchor's configuration into a folder; return the names of the weight files.

    Raises:
        MergeError: as `write_merged`.
    """
    weights = write_merged(plan, folder, writing=writing, progress=progress)
    anchor = plan.anchor.source
    for name in _COMPANIONS:
        if name in anchor.files and not (anchor.ref.path and anchor.ref.path.is_file()):
            content = hub.fetch(anchor, name).read_bytes()
            (folder / name).write_bytes(_config(content, plan) if name == "config.json" else content)
    for name in code_files(plan):
        (folder / name).write_bytes(hub.fetch(anchor, name).read_bytes())
    return weights


def code_files(plan: MergePlan) -> tuple[str, ...]:
    """Return the names of the anchor's Python files that are copied, since its network's code travels with it.

    The code is copied and never run.
    """
    if "auto_map" not in plan.anchor.config:
        return ()
    return tuple(name for name in plan.anchor.source.files if name.endswith(".py") and "/" not in name)


def _config(content: bytes, plan: MergePlan) -> bytes:
    """The anchor's configuration, without a path of somebody's machine and with the dtype that is written."""
    config = json.loads(content)
    changed = config.pop("_name_or_path", None) is not None
    if plan.knobs.dtype is not None:
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        changed |= config.get(key) != plan.knobs.dtype
        config[key] = plan.knobs.dtype
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode() if changed else content
