"""Write the pages' HTML: the templates, and headers under which nothing in a page runs or comes from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from hf_lwmm.localhub.access import Hub
from hf_lwmm.localhub.records import StoreError, User

REALM = {"WWW-Authenticate": 'Basic realm="local Hub: your name, and your token as the password", charset="UTF-8"'}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATUS = {"RepoNotFound": 404, "GatedRepo": 403}  # where the API says 401, which would open the browser's dialog


def html(request: Request, user: User | None, name: str, *, status: int = 200, **values: Any) -> Response:
    """Return the page that a template makes of values."""
    here = request.scope["raw_path"].decode("ascii", "replace").split("?")[0]
    # Browsers send a name and a token again below the folder of the page that asked for them.
    page = _environment().get_template(name).render(user=user, sign_in=f"/login?next={quote(here)}", **values)
    return HTMLResponse(page, status, _HEADERS)


def refused(hub: Hub, request: Request, error: StoreError) -> Response:
    """Return the page that says why there is none."""
    status = _STATUS.get(error.code, error.status)
    try:
        user = hub.user(request)
    except StoreError:
        user = None
    page = html(request, user, "refused", status=status, message=error.message, code=error.code)
    page.headers.update(REALM if status == 401 else {})
    return page


@cache
def _environment() -> Environment:
    """The templates, which write all values as text."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(path=quote, segment=lambda text: quote(text, safe=""), day=_day, bytes=_bytes)
    return environment


def _template(name: str) -> str:
    return files("hf_lwmm.localhub.pages").joinpath(f"templates/{name}.html.jinja").read_text(encoding="utf-8")


def _day(date: str) -> str:
    """A date of the Hub, to the minute."""
    return f"{date[:10]} {date[11:16]} UTC"


def _bytes(size: int) -> str:
    """A file's size, as the Hub gives it."""
    number = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:  # what three digits round up to is one of the next unit
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
