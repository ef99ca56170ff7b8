"""Read single bytes of files on the Hub, and fetch into the cache only those that a merge reads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hf_lwmm.errors import HubError
from hf_lwmm.hub.calls import disk_errors
from hf_lwmm.hub.client import Source, fetch
from hf_lwmm.hub.concurrently import concurrently
from hf_lwmm.hub.partial_file import BLOCK, OtherContentError, PartialFile
from hf_lwmm.hub.range_requests import FileChangedError, RangeRequests, RangesRefusedError
from hf_lwmm.hub.ranges import Span, align, coalesce, cut, subtract, total, union
from hf_lwmm.hub.transfer import Part, transfer

_KEPT_BLOCK = 1 << 18  # bytes of a block that is kept in memory
_KEPT = 1 << 26  # bytes kept in memory, and the most that one read asks for at once
_WHOLE_FROM = 0.8  # of a file: who needs more downloads it whole
_READ_ALONG = 100  # for each so many needed bytes, one that is not needed may be fetched


def open_remote(source: Source, name: str) -> RemoteFile | None:
    """Open a file of a model on the Hub without downloading it.

    Returns:
        The file; None if it is to be opened in the ordinary way, after `fetch`: it is local or in the cache, offline
        mode is on, or the Hub does not tell its size and hash.

    Raises:
        HubError: if there is no such file, or the Hub cannot be reached.
    """
    repo_id = source.ref.repo_id
    if repo_id is None:
        return None
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.file_download import repo_folder_name

    if is_offline_mode():
        return None
    if (cached := _cached(source, name)) is not None:
        _remove(_partial(cached.resolve()))
        return None
    requests = RangeRequests(source, name)
    if requests.etag is None:
        return None
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    blob = folder / "blobs" / requests.etag
    with disk_errors(blob):
        if blob.exists():  # another revision has the same file, and nothing is downloaded
            _remove(_partial(blob))
            return None
    return RemoteFile(source, name, requests, blob)


class RemoteFile:
    """A file on the Hub, of which any bytes can be read; several threads may do so at once.

    What `fetch` has brought is read from the disk. Everything else is asked for when it is read, and kept in memory
    only, so looking at a model leaves nothing behind.

    Attributes:
        name: what messages call it.
        size: in bytes.
        sha256: the SHA-256 of the content, in hexadecimal, as the Hub records it for large files; None for small ones.
    """

    def __init__(self, source: Source, name: str, requests: RangeRequests, blob: Path) -> None:
        """Read through `requests` a file whose place in the cache, once it is whole, is `blob`."""
        self.name, self.size, self._name = source.file_label(name), requests.size, name
        self.sha256 = requests.etag if len(requests.etag or "") == 64 else None
        self._source, self._requests, self._blob = source, requests, blob
        self._partial = _partial(blob)
        self._lock = threading.Lock()
        self._kept: dict[int, bytes] = {}
        self._closed = False
        self._stored = PartialFile.open(self._partial, self.size)
        self._whole: Path | None = None

    @property
    def path(self) -> Path | None:
        """The whole file, once it is in the cache."""
        return self._whole

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `start` on.

        Raises:
            RangesRefusedError: if bytes were not fetched and the server sends whole files only.
            HubError: if the file is closed, ends before, or has changed, or the Hub cannot be reached.
        """
        end = start + len(buffer)
        self._check(start, end)
        stored = self._stored
        held = stored.held(start, end) if stored is not None else []
        for first, last in held:
            assert stored is not None
            stored.read(first, buffer[first - start : last - start])
        for first, last in cut(subtract([(start, end)], held), _KEPT):
            self._read_blocks(first, buffer[first - start : last - start])

    def prefetch_ends(self, count: int) -> None:
        """Ask for the first and the last `count` bytes at once; who reads them next need not wait for the Hub.

        Raises:
            RangesRefusedError, HubError: as `read`.
        """

        def reader(start: int, end: int) -> Callable[[], None]:
            return lambda: self.read(start, memoryview(bytearray(end - start)))

        ends = union([(0, min(count, self.size)), (max(0, self.size - count), self.size)])
        for outcome in concurrently([reader(start, end) for start, end in ends]):
            outcome.result()

    def fetch(self, spans: Sequence[Span], progress: Callable[[int], None], *, whole: bool = False) -> Path | None:
        """Bring spans of the file, half-open and in bytes, into the cache, where other merges find them too.

        What is there already is not fetched again, also after a merge that was interrupted. Who needs most of a file
        gets all of it, as an ordinary download.

        Args:
            spans: what will be read.
            progress: called in this thread with the number of bytes that have come since it was called last.
            whole: True to download the file whatever the spans are.

        Returns:
            The path of the whole file if it is in the cache now, else None.

        Raises:
            HubError: if a span lies outside, the file is closed or has changed, the disk is full, or the Hub cannot be
                reached. What has arrived is kept, unless the file has changed.
        """
        for start, end in spans:
            self._check(start, end)
        if (path := self._whole or _cached(self._source, self._name)) is not None:
            return self._use(path)
        missing = self._missing(spans)
        try:
            if whole or missing is None:
                return self._use(self._complete(self._held([(0, self.size)]), progress))
            if missing:
                self._bring(missing, progress)
            if self._blob.exists():  # another process has downloaded the file meanwhile
                return self._use(fetch(self._source, self._name))
            return None
        except RangesRefusedError:
            return self._use(self._download(progress))
        except FileChangedError:
            self._forget()
            raise

    def part(self, spans: Sequence[Span]) -> Part | None:
        """Return what `fetch` would carry into the cache for spans; None if it would do less, or more.

        Raises:
            HubError: as `fetch`.
        """
        for start, end in spans:
            self._check(start, end)
        if (self._whole or _cached(self._source, self._name)) is not None or not (missing := self._missing(spans)):
            return None
        return Part(self._requests, self._create(), missing)

    def close(self) -> None:
        """Close the file, which cannot be read again."""
        self._closed, self._stored = True, None
        self._kept.clear()

    def _check(self, start: int, end: int) -> None:
        if self._closed:
            raise HubError(f"{self._requests.label}: was closed, so it cannot be read. Open the model again.")
        if start < 0 or end > self.size:
            raise HubError(f"{self._requests.label}: ends too early; it is truncated or damaged.")

    def _missing(self, spans: Sequence[Span]) -> list[Span] | None:
        """The bytes to fetch for spans, with small gaps between them; None where most of the file is needed."""
        self._stored = PartialFile.open(self._partial, self.size)
        needed = align(spans, BLOCK, self.size)
        missing = subtract(needed, self._held(needed))
        recorded = self._stored.recorded() if self._stored is not None else []
        if missing and total(union([*needed, *recorded])) > _WHOLE_FROM * self.size:
            return None
        return coalesce(missing, total(missing) // _READ_ALONG)

    def _held(self, spans: Sequence[Span]) -> list[Span]:
        """The parts of spans that are on disk."""
        return [held for span in spans for held in self._stored.held(*span)] if self._stored is not None else []

    def _read_blocks(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from the blocks in memory, after one request for those that are missing."""
        end = start + len(buffer)
        numbers = range(start // _KEPT_BLOCK, -(-end // _KEPT_BLOCK))
        with self._lock:
            blocks = {number: self._kept[number] for number in numbers if number in self._kept}
        missing = [number for number in numbers if number not in blocks]
        if missing:
            loaded = self._load_blocks(missing[0], missing[-1] + 1)
            blocks |= loaded
            with self._lock:
                self._kept |= loaded
                while len(self._kept) > _KEPT // _KEPT_BLOCK:
                    del self._kept[next(iter(self._kept))]
        for number, block in blocks.items():
            base = number * _KEPT_BLOCK
            first, last = max(start, base), min(end, base + len(block))
            buffer[first - start : last - start] = block[first - base : last - base]

    def _load_blocks(self, first: int, last: int) -> dict[int, bytes]:
        base, end = first * _KEPT_BLOCK, min(last * _KEPT_BLOCK, self.size)
        data = bytearray(end - base)

        def keep(position: int, piece: bytes) -> None:
            data[position - base : position - base + len(piece)] = piece

        self._requests.load(base, end, keep)
        pieces = cut([(0, len(data))], _KEPT_BLOCK)
        return {first + index: bytes(data[start:stop]) for index, (start, stop) in enumerate(pieces)}

    def _complete(self, held: Sequence[Span], progress: Callable[[int], None]) -> Path:
        """Bring the whole file into the cache; fetch only the rest if most of it is there."""
        if self.sha256 is not None and total(held) > self.size / 2:
            self._bring(subtract([(0, self.size)], held), progress)
            assert self._stored is not None
            try:
                self._stored.complete(self._blob, self.sha256)
            except OtherContentError:
                self._stored = None
                PartialFile.set_aside(self._partial)
                return self._download(progress)
            return fetch(self._source, self._name)  # makes the name in the cache, and downloads nothing
        return self._download(progress)

    def _download(self, progress: Callable[[int], None]) -> Path:
        path = fetch(self._source, self._name)
        progress(self.size)
        return path

    def _use(self, path: Path) -> Path:
        """Read from a whole file from now on; the partial one is of no more use."""
        _remove(self._partial)
        if self._whole is None:
            with disk_errors(path):  # it may have been deleted since
                self._stored, self._whole = PartialFile.of_whole(path), path
        return path

    def _forget(self) -> None:
        """Delete what was fetched."""
        self._stored = None
        _remove(self._partial)

    def _bring(self, spans: Sequence[Span], progress: Callable[[int], None]) -> None:
        """Fetch spans, which begin and end where blocks do, into the partial file."""
        transfer([Part(self._requests, self._create(), spans)], progress)

    def _create(self) -> PartialFile:
        """The partial file, made if there is none."""
        with disk_errors(self._partial):
            self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._stored = PartialFile.create(self._partial, self.size)
        return self._stored


def fetch_together(wanted: Mapping[RemoteFile, Sequence[Span]], progress: Callable[[int], None]) -> None:
    """Fetch spans of several files as `RemoteFile.fetch` does; the line is busy from the first file to the last.

    Raises:
        HubError: as `RemoteFile.fetch`.
    """
    parts = {file: part for file, spans in wanted.items() if (part := file.part(spans)) is not None}
    # Where one of them has changed, or comes whole only, each for itself finds out which.
    with contextlib.suppress(FileChangedError, RangesRefusedError):
        transfer(list(parts.values()), progress)
        wanted = {file: spans for file, spans in wanted.items() if file not in parts}
    for file, spans in wanted.items():
        file.fetch(spans, progress)


def _partial(blob: Path) -> Path:
    """The place of what is there of a file that is to be `blob` in the cache."""
    # Its ending tells the cache's own tools what it is: they list it, and delete it when they are asked to.
    return blob.with_name(f"{blob.name}.partial.incomplete")


def _remove(partial: Path) -> None:
    """Delete a partial file that is of no more use, where the cache can be written."""
    with contextlib.suppress(OSError):
        partial.unlink()


def _cached(source: Source, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    assert source.ref.repo_id is not None
    found = try_to_load_from_cache(source.ref.repo_id, name, revision=source.sha)
    return Path(found) if isinstance(found, str) else None
