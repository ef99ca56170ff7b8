"""Readers of stored tensors, whatever file they are in, or in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from hf_lwmm.checkpoints.dtypes import Bytes
from hf_lwmm.errors import CheckpointError

_T = TypeVar("_T")


class TensorReader(Protocol):
    """Reads bytes of stored tensors; several threads may do so at once."""

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on."""

    def close(self) -> None:
        """Let go of the tensors, which cannot be read again."""


class FileReader(Protocol):
    """Reads bytes of the tensors of one file, which whoever opened it closes."""

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on."""

    def spans(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Return the bytes of the file, first and one past the last, in which tensors lie."""

    def renamed(self, names: Mapping[str, str]) -> FileReader:
        """Return a reader of the tensors of `names`, which has their present names by their new ones."""


class JoinedReader:
    """Read tensors of several files as if they were one's."""

    def __init__(self, readers: Mapping[str, FileReader]) -> None:
        """`readers` has a reader for each tensor."""
        self._readers = readers

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on.

        Raises:
            CheckpointError: if the files are closed.
        """
        _open(self._readers, name).read(name, start, buffer)

    def close(self) -> None:
        """Let go of the tensors, which cannot be read again."""
        self._readers = {}


class MemoryReader:
    """Read bytes of tensors that are in memory or mapped into it."""

    def __init__(self, data: Mapping[str, Bytes]) -> None:
        self._data = data

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on.

        Raises:
            CheckpointError: if the reader is closed.
        """
        buffer[:] = _open(self._data, name)[start : start + len(buffer)].data

    def close(self) -> None:
        """Release the tensors, which cannot be read again."""
        self._data = {}


def _open(held: Mapping[str, _T], name: str) -> _T:
    """The entry of a tensor, which closing lets go of."""
    if name not in held:
        raise CheckpointError(f"Tensor {name!r} cannot be read: its file was closed. Open the model again.")
    return held[name]
