"""A merged network as a folder: its weights, and what of the anchor's files a network needs besides them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_lwmm import hub
from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.planning.plan import MergePlan

_COMPANIONS = ("config.json", "preprocessor_config.json")


def write_network(
    plan: MergePlan, folder: Path, *, progress: Callable[[int], None] = lambda count: None, **options: Any
) -> tuple[str, ...]:
    """Write the merged weights and the anchor's configuration into a folder; gives the names of the weights' files.

    `progress` and `options` are those of `write_merged`.

    Raises:
        MergeError: as `write_merged`.
    """
    weights = write_merged(plan, folder, progress=progress, **options)
    anchor = plan.anchor.source
    for name in _COMPANIONS:
        if name in anchor.files and not (anchor.ref.path and anchor.ref.path.is_file()):
            content = hub.fetch(anchor, name).read_bytes()
            (folder / name).write_bytes(_config(content, plan) if name == "config.json" else content)
    if "auto_map" in plan.anchor.config:  # a network whose code travels with it; it is copied, never run
        for name in (name for name in anchor.files if name.endswith(".py") and "/" not in name):
            (folder / name).write_bytes(hub.fetch(anchor, name).read_bytes())
    return weights


def _config(content: bytes, plan: MergePlan) -> bytes:
    """The anchor's config; only a path of somebody's machine and another dtype are corrected."""
    config = json.loads(content)
    changed = config.pop("_name_or_path", None) is not None
    if plan.knobs.dtype is not None:
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        changed |= config.get(key) != plan.knobs.dtype
        config[key] = plan.knobs.dtype
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode() if changed else content
