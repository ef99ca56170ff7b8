"""A small server that speaks the Hub's HTTP protocol from a folder: try-outs, tests, air-gapped sites."""

from __future__ import annotations

from importlib.util import find_spec

from hf_lwmm.errors import HubError

if find_spec("starlette") is None or find_spec("uvicorn") is None:
    raise HubError("The local Hub needs two more packages: pip install 'hf-lwmm[hub]'")

from hf_lwmm.localhub.faults import Fault
from hf_lwmm.localhub.server import LocalHub, serve

__all__ = ["Fault", "LocalHub", "serve"]
