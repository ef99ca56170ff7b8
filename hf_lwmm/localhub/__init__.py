"""A small server that speaks the Hub's HTTP protocol from a folder: for trying things out, tests and offline sites."""

from __future__ import annotations

from hf_lwmm.errors import naming_extras

with naming_extras("A local Hub"):
    from hf_lwmm.localhub.faults import Fault
    from hf_lwmm.localhub.server import LocalHub, serve
    from hf_lwmm.localhub.throttle import Throttle

__all__ = ["Fault", "LocalHub", "Throttle", "serve"]
