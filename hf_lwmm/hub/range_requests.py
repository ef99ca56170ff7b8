"""Ask a Hub for pieces of one file, and make sure that all of them are pieces of the same file."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hf_lwmm.errors import HubError
from hf_lwmm.hub.calls import call, read, readable, transport_errors
from hf_lwmm.hub.client import Source

if TYPE_CHECKING:
    from httpx2 import Response
    from huggingface_hub import HfFileMetadata

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class RangesRefusedError(HubError):
    """The server sends whole files only."""


class FileChangedError(HubError):
    """A file has become another one while it was being read."""


@dataclass
class _Location:
    """An address of the file, the ETag that it gives, and whether a new one may be asked for if it refuses."""

    url: str
    on_hub: bool
    renewable: bool
    etag: str | None = None


class RangeRequests:
    """A remote file of which pieces can be asked for; several threads may do so at once.

    `size` is in bytes. `etag` is the Hub's name for the content, a hash in hexadecimal; None if it gives another name,
    or no size. In this case the file can only be downloaded in the ordinary way.
    """

    def __init__(self, source: Source, name: str) -> None:
        """Ask the Hub for the size, the ETag and the address of a file.

        Raises:
            HubError: if there is no such file, or the Hub cannot be reached.
        """
        from huggingface_hub import hf_hub_url

        assert source.ref.repo_id is not None, "only files on the Hub are asked for"
        self.label = f"{source.label}:{name}"
        self._ref, self._name = source.ref, name
        self._url = hf_hub_url(source.ref.repo_id, name, revision=source.sha)
        self._lock = threading.Lock()
        metadata = self._metadata()
        self.size = metadata.size or 0
        known = metadata.size is not None and _DIGEST.fullmatch(metadata.etag or "") is not None
        self.etag = metadata.etag if known else None
        self._location = self._place(metadata, renewable=True)

    def load(self, start: int, end: int, sink: Callable[[int, bytes], None]) -> None:
        """Pass the bytes from `start` up to `end` to `sink`, in pieces as they arrive, each with its position.

        A connection that breaks is taken up again where it broke; a try that brings nothing counts against the number
        of tries.

        Raises:
            RangesRefusedError: if the server sends whole files only.
            HubError: if the file has changed since its size was asked for, or the Hub cannot be reached.
        """
        position = start

        def attempt() -> None:
            nonlocal position
            begun = position
            try:
                for piece in self._pieces(position, end):
                    sink(position, piece)
                    position += len(piece)
            except transport_errors():
                if position == begun:
                    raise

        while position < end:
            call(self._ref, attempt, self._name)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Yield what one request brings; nothing if its only result is that the file has a new address."""
        import httpx2
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers

        location = self._location
        # A location on another host is signed. The token must not go there.
        headers = build_hf_headers(token=None if location.on_hub else False, library_name="hf-lwmm")
        headers |= {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        if location.etag is not None and not location.etag.startswith("W/"):  # weak ones do not fit into If-Range
            headers["If-Range"] = location.etag
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream(
            "GET", location.url, headers=headers, follow_redirects=True, timeout=timeout
        ) as response:
            if response.status_code in (401, 403) and location.renewable:
                self._renew(location)
                return
            self._check(response, location, start)
            left = end - start
            for piece in response.iter_raw():
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return
            if left == end - start:
                raise httpx2.RemoteProtocolError("an empty answer")

    def _check(self, response: Response, location: _Location, start: int) -> None:
        """Refuse an answer that is not the asked-for piece of the same file."""
        from huggingface_hub import hf_raise_for_status

        if response.status_code == 416:
            raise self._changed()
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        etag = response.headers.get("ETag")
        with self._lock:
            if location.etag is None:
                location.etag = etag
        if etag != location.etag:
            raise self._changed()
        place = re.fullmatch(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})", response.headers.get("Content-Range", ""))
        plain = response.headers.get("Content-Encoding", "identity") == "identity"
        if response.status_code != 206 or place is None or not plain:
            raise RangesRefusedError(
                f"{self.label}: its server sends whole files only, no pieces. Download it whole with --full-download."
            )
        if (int(place[1]), int(place[2])) != (start, self.size):
            raise self._changed()
        location.renewable = not location.on_hub

    def _renew(self, refused: _Location) -> None:
        """Ask for the address again, after the signature of the last one has run out."""
        with self._lock:
            if self._location is not refused:  # another thread has asked
                return
            metadata = self._metadata()
            if (metadata.size, metadata.etag) != (self.size, self.etag):
                raise self._changed()
            # Not to be renewed before it has answered once: else a refusal for good would be asked about for ever.
            self._location = self._place(metadata, renewable=False)

    def _metadata(self) -> HfFileMetadata:
        from huggingface_hub import get_hf_file_metadata

        return read(self._ref, lambda: get_hf_file_metadata(self._url, library_name="hf-lwmm"), self._name)

    def _place(self, metadata: HfFileMetadata, *, renewable: bool) -> _Location:
        with readable(self.label):
            on_hub = urlsplit(metadata.location)[:2] == urlsplit(self._url)[:2]
        return _Location(metadata.location, on_hub, renewable and not on_hub)

    def _changed(self) -> FileChangedError:
        return FileChangedError(f"{self.label} changed while it was being read; run again.")
