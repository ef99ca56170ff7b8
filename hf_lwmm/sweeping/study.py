"""Identify the models, images and options behind the results of a sweep, which are never mixed with others."""

from __future__ import annotations

from typing import Any

from hf_lwmm import hub
from hf_lwmm._version import __version__
from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.companions import COMPANIONS, companion
from hf_lwmm.networks.own_code import own_network
from hf_lwmm.options import Options
from hf_lwmm.sweeping.scorer import CandidateScorer, SweepData

# No result depends on the device, on how rows are fetched, or on how many threads read them. The images are identified
# by their content, the protocol by its classes, ensembles are candidates, and intervals are drawn anew from the counts.
_LEFT_OUT = ("device", "data", "protocol", "split", "limit", "streaming", "ensemble", "examples", "groups", "workers")


def study_of(scorer: CandidateScorer, data: SweepData) -> dict[str, Any]:
    """Return the identity of results as plain data: the models by their contents, the images, and all options.

    Options at their defaults are left out, so that naming a default changes nothing.
    """
    setup, base, measurements = scorer.setup, scorer.base, scorer.measurements
    reading = _changed(setup.images)
    return {
        "version": __version__,
        "models": [_identity(checkpoint) for checkpoint in scorer.models],
        "base": _identity(base) if base else None,
        "measurements": [_identity(checkpoint) for checkpoint in measurements] or None,
        "data set": [data.name, data.images, data.identity, list(data.classes.every), list(data.classes.rows), reading],
        "way of loading": _changed(setup.network) | _own_code(scorer),
        "way of scoring": _changed(setup.evaluation),
    }


def _own_code(scorer: CandidateScorer) -> dict[str, Any]:
    """The code of a network of the user's own, by its hash."""
    network = scorer.setup.network
    return {"code": own_network(scorer.models[0], network).identity} if network.network else {}


def _identity(checkpoint: Checkpoint) -> str:
    """A model by its contents: its commit, or the hashes of the files that decide its outputs."""
    source = checkpoint.source
    if source.sha:
        return f"{source.ref}"
    paths = dict(checkpoint.paths)
    if source.ref.path is not None and source.ref.path.is_dir():
        found = (companion(source, checkpoint.folder, name) for name in COMPANIONS)
        paths |= {path: hub.fetch(source, path) for path in found if path is not None}
    return " ".join(f"{name}:{digest}" for name, digest in sorted(hub.file_hashes(paths).items()))


def _changed(options: Options) -> dict[str, Any]:
    """The options that differ from their defaults, as plain data."""
    plain = options.to_dict()
    return {name: plain[name] for name in options.changed() if name not in _LEFT_OUT}
