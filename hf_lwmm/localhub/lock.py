"""Let one server at a time serve a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hf_lwmm.errors import HubError


class RootLock:
    """The hold of one server on a folder, which ends with the server, however that ends."""

    def __init__(self, root: Path) -> None:
        """Take the folder. Raises HubError if another server has it, OSError if it cannot be locked."""
        self._file = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 200).decode(errors="replace")
            os.close(self._file)
            known = f" ({holder})" if holder and holder.isprintable() else ""
            raise HubError(
                f"{root}: a server that is running{known} has this folder. Use that one, or name another with --root."
            ) from None
        except OSError:
            os.close(self._file)
            raise
        self._say("")

    def announce(self, endpoint: str) -> None:
        """Tell others who has the folder."""
        self._say(f"process {os.getpid()}, {endpoint}")

    def release(self) -> None:
        """Let others have the folder."""
        fcntl.flock(self._file, fcntl.LOCK_UN)  # processes that were forked have the file open, too
        os.close(self._file)

    def _say(self, text: str) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)
