"""The Hub: model references, and the client that resolves, fetches and pushes through the stock library."""

from hf_lwmm.hub.client import (
    Pushed,
    PushOptions,
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
from hf_lwmm.hub.refs import ModelRef, Ref, parse_ref

__all__ = [
    "ModelRef",
    "Pushed",
    "PushOptions",
    "Ref",
    "Source",
    "check_push",
    "fetch",
    "parse_ref",
    "push_folder",
    "remote_header",
    "resolve",
    "sha256",
    "stamp",
    "target_repo",
    "whoami",
]
