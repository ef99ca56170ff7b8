"""Serve the stylesheet of the pages."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from hf_lwmm.localhub.access import Hub


def stylesheet(hub: Hub, request: Request) -> Response:
    """Answer with the pages' stylesheet."""
    text = files("hf_lwmm.localhub.pages").joinpath("templates/style.css").read_text(encoding="utf-8")
    return Response(text, media_type="text/css", headers={"X-Content-Type-Options": "nosniff"})
