"""The files of a model in a folder of this machine; links that lead out of the folder are not followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hf_lwmm.errors import CheckpointError


def files_of(folder: Path) -> tuple[str, ...]:
    """Return the names of the files below a folder, sorted, without those of the Hub client's own hidden folders."""
    return _names(folder, Path.is_file)


def no_files_of(folder: Path) -> tuple[str, ...]:
    """Return the names of what `files_of` passes over: links to folders or to nothing, pipes, sockets and the like."""
    return _names(folder, lambda path: not path.is_file() and (path.is_symlink() or not path.is_dir()))


def _names(folder: Path, wanted: Callable[[Path], bool]) -> tuple[str, ...]:
    found = [path.relative_to(folder) for path in folder.rglob("*") if wanted(path)]
    return tuple(sorted(str(name) for name in found if ".cache" not in name.parts))


def file_of(folder: Path, name: str) -> Path:
    """Return the path of a file of a folder.

    Raises:
        CheckpointError: if it is a link to a place outside the folder, as a repository of a stranger may have them.
            The links of the Hub's cache, from a snapshot to the content of its files, stay inside.
    """
    path = folder / name
    if not is_inside(folder, path):
        raise CheckpointError(
            f"{folder}: its file {name!r} is a link that leads out of the folder, to {path.resolve()}, and is not "
            "followed. Put a copy in its place, or delete it."
        )
    return path


def is_inside(folder: Path, path: Path) -> bool:
    """Return True if a file lies below a folder, or where the Hub's cache keeps what links of the folder lead to."""
    root, real = folder.resolve(), path.resolve()
    return any(inside in real.parents for inside in (root, *_content_folders(root)))


def _content_folders(snapshot: Path) -> tuple[Path, ...]:
    """Where the Hub's cache keeps the content of a snapshot's files: that of one repository, and what several share."""
    for folder in (snapshot, *snapshot.parents):
        if folder.parent.name == "snapshots" and "--" in folder.parent.parent.name:
            repository = folder.parent.parent
            return (repository / "blobs", repository.parent / "blobs")
    return ()
