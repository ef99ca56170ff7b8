"""The Hub: model references, and the client that resolves, fetches and pushes through the stock library."""

from hf_lwmm.hub.client import (
    Pushed,
    Source,
    check_push,
    fetch,
    push_folder,
    remote_header,
    resolve,
    sha256,
    stamp,
    target_repo,
    whoami,
)

__all__ = [
    "Pushed",
    "Source",
    "check_push",
    "fetch",
    "push_folder",
    "remote_header",
    "resolve",
    "sha256",
    "stamp",
    "target_repo",
    "whoami",
]
