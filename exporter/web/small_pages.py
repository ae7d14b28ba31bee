"""Small HTML pages: the index of the API, and what browsers see at an address that does not exist."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.web.openapi import PREFIX, openapi
from exporter.web.responses import HTML_TYPE, cacheable_response


class SmallPages:
    """The routes ``/api``, ``/api/v1`` and ``/favicon.ico``, and the answer to unknown addresses.

    Args:
        version: the exporter's.
    """

    def __init__(self, version: str) -> None:
        templates = jinja2.Environment(
            loader=jinja2.PackageLoader("exporter.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        endpoints = [
            (path, operation["get"]["summary"], [each["name"] for each in operation["get"]["parameters"]])
            for path, operation in openapi(version)["paths"].items()
        ]
        self._index = {
            path: templates.get_template("api.html").render(endpoints=endpoints, prefix=PREFIX, top=top).encode()
            for path, top in (("/api", "./"), ("/api/", "../"), (PREFIX, "../"), (f"{PREFIX}/", "../../"))
        }
        self._not_found = templates.get_template("not_found.html")
        self._icon = (resources.files("exporter.web") / "static" / "icon.svg").read_bytes()

    def routes(self) -> list[BaseRoute]:
        """List the routes."""
        return [*(Route(path, self._api) for path in self._index), Route("/favicon.ico", self._favicon)]

    def _api(self, request: Request) -> Response:
        return cacheable_response(request, self._index[request.scope["path"]], HTML_TYPE)

    def _favicon(self, request: Request) -> Response:
        return cacheable_response(request, self._icon, "image/svg+xml")

    def not_found(self, request: Request, _: Exception) -> Response:
        """Answer a request for an unknown address: HTML for browsers, one line for programs."""
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse("Not Found", 404)
        top = "../" * (request.scope["path"].count("/") - 1) or "./"
        return Response(self._not_found.render(top=top), 404, media_type=HTML_TYPE)


def exception_handlers(pages: SmallPages) -> dict[Any, Any]:
    """Return how the application answers errors. Only 404 differs from Starlette's default."""

    def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return pages.not_found(request, error)

    return {404: answer}
