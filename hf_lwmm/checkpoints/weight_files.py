"""Choose the files of a repository or folder that hold a model's weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX, ShardIndex, index_of, is_shard, lacking_shards, read_index
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES
from hf_lwmm.errors import CheckpointError
from hf_lwmm.hub import Source

# What transformers looks for, in its order.
PREFERRED = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
ADAPTER_FILE = "adapter_model"  # how peft's file begins, which holds no network, but changes to one
_NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler", "random_states")


@dataclass(frozen=True)
class ChosenFiles:
    """The files that hold a model's weights, their index if they are shards, and notes on what was passed over."""

    names: tuple[str, ...]
    index: ShardIndex | None = None
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder that they stand in; "" for the top of a repository, or for several folders."""
        return _folder(self.names if self.index is None else (self.index.name,))


def is_weights(name: str) -> bool:
    """True for the name of a file of weights, or of an index of such files."""
    return name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX))


def choose_files(source: Source) -> ChosenFiles:
    """Choose the files that hold the weights.

    Raises:
        CheckpointError: if there is none, no way to tell which, or a shard index cannot be used.
    """
    named = source.ref.files
    if source.ref.path is not None and source.ref.path.is_file():
        return _named(source, source.files)
    if not named:
        return _choose_in(source, "")
    missing = [name for name in named if name not in source.files]
    if len(named) == 1 and any(name.startswith(named[0] + "/") for name in source.files):
        return _choose_in(source, named[0])
    if missing:
        have = ", ".join(_candidates(source, "")[:10]) or "no weights at all"
        raise CheckpointError(f"{source.label}: has no file {missing[0]!r}. It has {have}.{_online(source)}")
    return _named(source, named)


def _online(source: Source) -> str:
    """A hint where the repository may have more files than the cache; "" where all are known."""
    return " This is what the cache holds. Unset HF_HUB_OFFLINE to download the rest." if source.cached else ""


def default_files(source: Source, folder: str) -> tuple[str, ...]:
    """Return what transformers takes from a folder; nothing if it finds no weights there."""
    return tuple(path for name in PREFERRED if (path := _join(folder, name)) in source.files)[:1]


def first_file(files: Collection[str]) -> str | None:
    """Return the file that loading begins with, weights or an index; None if there is none or no way to tell which."""
    preferred = [name for name in PREFERRED if name in files]
    candidates = preferred or _weights(files)
    return candidates[0] if preferred or len(candidates) == 1 else None


def weights_in(files: Iterable[str], folder: str) -> tuple[str, ...]:
    """Return those of the files that hold weights and stand in a folder itself, "" for the top of a repository."""
    return tuple(name for name in _weights(files) if _folder([name]) == folder)


def _named(source: Source, names: tuple[str, ...]) -> ChosenFiles:
    """The files that a reference names, as they are."""
    if len(names) == 1 and names[0].endswith(INDEX_SUFFIX):
        index = read_index(source, names[0])
        return ChosenFiles(index.shards, index)
    lacking = lacking_shards(names, source)
    return ChosenFiles(names, notes=(f"{source.label}: {lacking}",) if lacking else ())


def _choose_in(source: Source, folder: str) -> ChosenFiles:
    """The files of the model in a folder."""
    every = _candidates(source, folder)
    candidates = [name for name in every if not PurePosixPath(name).name.startswith(ADAPTER_FILE)] or every
    adapters = tuple(
        f"{source.label}: left out the adapter {name}. If it belongs to the model, merge it in first (peft: "
        "`merge_and_unload()`)."
        for name in every
        if name not in candidates
    )
    preferred = [path for name in PREFERRED if (path := _join(folder, name)) in source.files]
    if preferred:
        chosen = _named(source, (preferred[0],))
        taken = {*preferred, *chosen.names}
        others = [name for name in candidates if name not in taken and not is_shard(name)] + preferred[1:]
        note = (f"{source.label}: took {preferred[0]}, not {', '.join(others[:5])}",) if others else ()
        return replace(chosen, notes=(*note, *adapters))
    if not candidates:
        have = ", ".join(source.files[:10]) or "nothing"
        sought, hint = ", ".join(WEIGHT_SUFFIXES), _online(source)
        raise CheckpointError(f"{source.label}: no weights found (looked for {sought}); it has {have}.{hint}")
    own = _folder(candidates)
    if own.startswith(_join(folder, "")) and own != folder:
        chosen = _choose_in(source, own)
        took = chosen.notes or (f"{source.label}: took {', '.join(chosen.names[:5])}",)
        return replace(chosen, notes=(*took, *adapters))
    if all(map(is_shard, candidates)):
        raise CheckpointError(f"{source.label}: {_without_index(source, candidates)}.")
    if len(candidates) > 1:
        raise CheckpointError(
            f"{source.label}: several files could hold the weights: {', '.join(candidates[:10])}. "
            f"Say which: {source.ref.of(candidates[0]).shown}"
        )
    return ChosenFiles((candidates[0],), notes=(f"{source.label}: took {candidates[0]}", *adapters))


def _folder(names: Sequence[str]) -> str:
    folders = {PurePosixPath(name).parent.as_posix() for name in names}
    folder = folders.pop() if len(folders) == 1 else "."
    return "" if folder == "." else folder


def _candidates(source: Source, folder: str) -> list[str]:
    return [name for name in _weights(source.files) if name.startswith(_join(folder, ""))]


def _weights(files: Iterable[str]) -> list[str]:
    names = (name for name in files if name.endswith(WEIGHT_SUFFIXES))
    return [name for name in names if not PurePosixPath(name).name.startswith(_NOT_WEIGHTS)]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _without_index(source: Source, shards: Sequence[str]) -> str:
    """Return the fault and the remedy where a folder has shards and no index."""
    named = source.ref.of(*shards).shown if len(shards) <= 10 else f"{source.ref.of(shards[0]).shown}+..."
    return lacking_shards(shards, source) or (
        f"has the shards of a model without {index_of(shards[0])}. Download it, or name them all: {named}"
    )
