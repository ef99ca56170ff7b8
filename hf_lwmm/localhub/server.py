"""Run the local Hub: until interrupted (`serve`), or in a thread of a test (`LocalHub`)."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from hf_lwmm.errors import HubError
from hf_lwmm.localhub.app import create_app
from hf_lwmm.localhub.connections import TimedConnection, TimedServer, until_cut
from hf_lwmm.localhub.faults import Fault
from hf_lwmm.localhub.lock import RootLock
from hf_lwmm.localhub.records import DamagedError, User
from hf_lwmm.localhub.store import Store
from hf_lwmm.localhub.throttle import Throttle

HOST = "127.0.0.1"


class LocalHub:
    """A local Hub in a thread, which runs inside `with LocalHub(folder) as hub:`, and has the folder for itself.

    Tests append to the list `hub.faults` to make requests fail, and clear it; without `faults` the Hub applies none.
    `hub.throttle` says how fast the responses are, and counts them; without `throttle` they are as fast as they can be.
    Port 0 means any free port. Requests for other hosts than this machine's own names and `hosts` are refused.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        *,
        faults: bool = True,
        throttle: Throttle | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        self.store, self._lock, self._socket = _open(root, port)
        self.faults: list[Fault] = []
        self.throttle = throttle or Throttle()
        self.port: int = self._socket.getsockname()[1]
        app = create_app(self.store, self.faults if faults else None, self.throttle, hosts)
        self._server = TimedServer(_config(app, logging.CRITICAL))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    @property
    def endpoint(self) -> str:
        """The address, as HF_ENDPOINT wants it."""
        return _endpoint(self._socket)

    @property
    def token(self) -> str:
        """The token of the first user."""
        return self.store.users()[0].token

    def add_user(
        self, name: str, *, token: str, role: Literal["read", "write"] = "write", orgs: tuple[str, ...] = ()
    ) -> User:
        """Add a user, or change the one of that name."""
        return self.store.add_user(User(name, token, role, orgs))

    def __enter__(self) -> LocalHub:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._lock.release()


def serve(
    root: Path,
    port: int,
    announce: Callable[[str, str, str], None] = lambda endpoint, user, token: None,
    hosts: Sequence[str] = (),
) -> None:
    """Serve the repositories of a folder on this machine, at 127.0.0.1, until interrupted.

    `announce` is called with the address, as HF_ENDPOINT wants it, and the name and the token of
    the first user, as soon as the port is reserved. Port 0 means any free port. Requests for other hosts than this
    machine's own names and `hosts` are refused.

    Raises:
        HubError: if the folder or the port cannot be used, or if another server has the folder.
    """
    store, lock, bound = _open(root, port)
    user = store.users()[0]
    announce(_endpoint(bound), user.name, user.token)
    try:
        TimedServer(_config(create_app(store, hosts=hosts), logging.WARNING)).run(sockets=[bound])
    finally:
        lock.release()


_GRACE = 2  # seconds that requests have to end when the server is stopped


def _config(app: ASGIApp, log_level: int) -> uvicorn.Config:
    return uvicorn.Config(
        until_cut(app),
        log_level=log_level,
        log_config=None,  # its own asks what stdout is, which may be closed
        lifespan="off",
        timeout_graceful_shutdown=_GRACE,
        http=TimedConnection,
        ws="none",
    )


def _endpoint(bound: socket.socket) -> str:
    return f"http://{HOST}:{bound.getsockname()[1]}"


def _open(root: Path, port: int) -> tuple[Store, RootLock, socket.socket]:
    """The store in a folder, which nobody else serves, and a port."""
    bound = _bind(port)
    lock = None
    try:
        if not root.exists():
            root.mkdir(mode=0o700, parents=True)
        lock = RootLock(root)
        lock.announce(_endpoint(bound))
        store = Store(root)
        if not store.users():
            raise HubError(f"{root}: its users.json was not written by a local Hub. Name another folder with --root.")
        store.disk.clear()
        store.contents.expire()
    except (OSError, HubError, DamagedError) as error:
        bound.close()
        if lock is not None:
            lock.release()
        if isinstance(error, HubError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise HubError(f"{root}: cannot hold repositories ({reason}). Name another with --root.") from None
    return store, lock, bound


def _bind(port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise HubError(f"--port {port} must be at least 0 and at most 65535.")
    bound = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sends at once what it knows to go over TCP
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen()  # from now on clients wait, and nobody else gets the port
    except OSError as error:
        bound.close()
        raise HubError(f"Port {port} cannot be used ({error.strerror}). Choose another with --port.") from None
    return bound
