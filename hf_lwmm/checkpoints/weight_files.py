"""Choose the files of a repository or folder that hold a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX, is_shard, lacking_shards
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES
from hf_lwmm.errors import CheckpointError
from hf_lwmm.hub import Source

# What transformers looks for, in its order.
_PREFERRED = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
_NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "random_states")


def choose_files(source: Source) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the files that hold the weights, and return them with a note where there was a choice.

    Raises:
        CheckpointError: if there is none, or no way to tell which.
    """
    named = source.ref.files
    if source.ref.path is not None and source.ref.path.is_file():
        return source.files, _shard_notes(source, source.files)
    if not named:
        return _choose_in(source, "")
    missing = [name for name in named if name not in source.files]
    if len(named) == 1 and any(name.startswith(named[0] + "/") for name in source.files):
        return _choose_in(source, named[0])
    if missing:
        have = ", ".join(_candidates(source, "")[:10]) or "no weights at all"
        raise CheckpointError(f"{source.label}: has no file {missing[0]!r}. It has {have}.")
    return named, _shard_notes(source, named)


def weights_folder(files: Sequence[str]) -> str:
    """Return the folder that files of weights stand in; "" for the top of a repository, or for several folders."""
    folders = {PurePosixPath(name).parent.as_posix() for name in files}
    folder = folders.pop() if len(folders) == 1 else "."
    return "" if folder == "." else folder


def default_files(source: Source, folder: str) -> tuple[str, ...]:
    """Return what transformers takes from a folder; nothing if it finds no weights there."""
    return tuple(path for name in _PREFERRED if (path := _join(folder, name)) in source.files)[:1]


def _choose_in(source: Source, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files of the model in a folder, and a note."""
    candidates = _candidates(source, folder)
    preferred = [path for name in _PREFERRED if (path := _join(folder, name)) in source.files]
    if preferred:
        others = [name for name in candidates if name not in preferred and not is_shard(name)] + preferred[1:]
        note = (f"{source.label}: took {preferred[0]}, not {', '.join(others[:5])}",) if others else ()
        return (preferred[0],), note
    if not candidates:
        have = ", ".join(source.files[:10]) or "nothing"
        raise CheckpointError(
            f"{source.label}: no weights found (looked for {', '.join(WEIGHT_SUFFIXES)}); it has {have}."
        )
    own = weights_folder(candidates)
    if own != folder and all(PurePosixPath(name).parent.as_posix() == own for name in candidates):
        chosen, notes = _choose_in(source, own)
        return chosen, notes or (f"{source.label}: took {chosen[0]}",)
    if any(map(is_shard, candidates)) and all(map(is_shard, candidates)):
        raise CheckpointError(f"{source.label}: {_without_index(source, candidates)}.")
    if len(candidates) > 1:
        raise CheckpointError(
            f"{source.label}: several files could hold the weights: {', '.join(candidates[:10])}. "
            f"Say which: {source.ref.of(candidates[0]).shown}"
        )
    return (candidates[0],), (f"{source.label}: took {candidates[0]}",)


def _candidates(source: Source, folder: str) -> list[str]:
    names = (name for name in source.files if name.endswith(WEIGHT_SUFFIXES) and name.startswith(_join(folder, "")))
    return [name for name in names if not PurePosixPath(name).name.startswith(_NOT_WEIGHTS)]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _without_index(source: Source, shards: Sequence[str]) -> str:
    """The remedy where a folder has shards and no index."""
    lacking = lacking_shards(shards, source)
    named = source.ref.of(*shards).shown if len(shards) <= 10 else f"{source.ref.of(shards[0]).shown}+..."
    return lacking or f"has shards without their index ({INDEX_SUFFIX[1:]}). Download it, or name them all: {named}"


def _shard_notes(source: Source, names: Sequence[str]) -> tuple[str, ...]:
    lacking = lacking_shards(names, source)
    return (f"{source.label}: {lacking}",) if lacking else ()
