"""Serves the page at ``/try``, its style and its script; ``/`` leads there."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from serving.page import form

if TYPE_CHECKING:
    from serving.repository import ModelRepository

# Nothing but what this server serves: no other origin, no inline script, no frame around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_KINDS = {"try.css": "text/css", "try.js": "text/javascript"}


def routes(repository: "ModelRepository") -> list[Route]:
    """Return the routes, for the application."""

    async def page(request: Request) -> Response:
        model = repository.served(request.query_params.get("model"))
        told = _HEADERS | {"Cache-Control": "no-store"}  # another release, another form
        return HTMLResponse(form.page(model, list(repository.endpoints)), headers=told)

    async def part(request: Request) -> Response:
        name = request.url.path.removeprefix("/try/")
        return Response(_read(name), media_type=_KINDS[name], headers=_HEADERS)

    async def home(_: Request) -> Response:
        return RedirectResponse("/try", status_code=307)

    return [
        Route("/", home),
        Route("/try", page),
        *(Route(f"/try/{name}", part) for name in _KINDS),
    ]


@cache
def _read(name: str) -> bytes:
    return (files("serving.page") / name).read_bytes()
