"""The runbooks of the alerts (``docs/runbooks``) as pages: a hospital's network may have no other place for them.

``/runbooks`` lists them; ``/runbooks/NAME.md`` is one of them.
"""

from __future__ import annotations

from pathlib import Path

import jinja2
import structlog
from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.process.bundled_files import RUNBOOKS, bundled_files
from exporter.web.responses import HTML_TYPE, cacheable_response

_LOG = structlog.get_logger(__name__)

PATH = "runbooks"
_DEFAULT = "MQIBeamFailed"
_BY_REASON = {
    "output_error": "MQIDoseNotWritten",
    "output_missing": "MQIDoseNotWritten",
    "empty_dose": "MQIEmptyDose",
    "preempted": "MQIBeamInterrupted",
    "node_failure": "MQIBeamInterrupted",
    "cancelled": "MQIBeamInterrupted",
    "no_particles": "MQINoParticles",
    "stalled": "MQIBeamStalled",
    "expired": "MQIBeamStalledLong",
    "source_down": "MQISourceDown",
    "folder_missing": "MQISourceFolderMissing",
    "waiting": "MQIBeamWaitingForLog",
}


def runbook_name(reason: str) -> str:
    """Return the name of the runbook for a failure reason or another situation, such as ``stalled``."""
    return _BY_REASON.get(reason, _DEFAULT)


class Runbooks:
    """The routes of the runbooks, which are read and rendered once."""

    def __init__(self) -> None:
        environment = jinja2.Environment(loader=jinja2.PackageLoader("exporter.web"), autoescape=True)
        template = environment.get_template("runbook.html")
        markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        self._pages = {
            path.stem: template.render(title=path.stem, body=markdown.render(path.read_text(encoding="utf-8"))).encode()
            for path in _files()
        }
        names = "".join(f'<li><a href="{PATH}/{name}.md">{name}</a></li>' for name in self._pages)
        self._list = template.render(title="Runbooks", body=f"<h1>Runbooks</h1><ul>{names}</ul>", top=True).encode()

    def routes(self) -> list[BaseRoute]:
        """List the routes."""
        return [Route(f"/{PATH}", self._index), Route(f"/{PATH}/{{name}}", self._page)]

    def _index(self, request: Request) -> Response:
        return cacheable_response(request, self._list, HTML_TYPE)

    def _page(self, request: Request) -> Response:
        page = self._pages.get(request.path_params["name"].removesuffix(".md"))
        if page is None:
            return PlainTextResponse("Not Found", 404)
        return cacheable_response(request, page, HTML_TYPE)


def _files() -> list[Path]:
    try:
        return bundled_files(*RUNBOOKS)
    except FileNotFoundError as error:
        _LOG.warning("no runbooks to show", error=str(error))
        return []
