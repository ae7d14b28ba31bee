"""The page for people: an empty page with its script, and a table made here for browsers without one.

Nothing in a page comes from a log or a database but by escaping (here) or as text (in the script), and no script or
style runs but those in ``static/``. PageLinks are relative, so that a reverse proxy may serve all this below a path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.beams.labels import PHASE_LABELS, REASON_TEXTS, STATE_LABELS, STATE_MEANINGS
from exporter.beams.snapshot import BeamState, StoreSnapshot
from exporter.privacy.identifiers import Identifiers
from exporter.web import fields
from exporter.web.api import cached_answer, source_parts
from exporter.web.fields import RenderContext, render
from exporter.web.runbooks import PATH, runbook_name

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageLinks:
    """Where the page leads to besides its own server; ``None`` is no link.

    Args:
        grafana_url: the dashboards.
        runbook_url: where the runbooks are; ``None`` for those that this server shows itself.
    """

    grafana_url: str | None = None
    runbook_url: str | None = None

    def runbook(self, reason: str) -> str:
        """What to do about a failure of this reason, or about ``stalled``."""
        return f"{(self.runbook_url or PATH).rstrip('/')}/{runbook_name(reason)}.md"


class Page:
    """``/``, ``/table`` and ``/static``.

    Args:
        snapshot: takes a snapshot of the store, for the table.
        identifiers: how ids, paths and texts are shown there.
        links: where else the page leads to.
        version: the exporter's.
        offers_names: whether some users may have the ids behind pseudonyms shown.
    """

    def __init__(
        self,
        snapshot: Callable[[], StoreSnapshot],
        identifiers: Identifiers,
        links: PageLinks,
        version: str,
        *,
        offers_names: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._static = _static_files()
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("exporter.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters.update(
            duration=duration, clock=clock, percent=percent, escaped=lambda text: quote(text, safe="")
        )
        environment.globals.update(
            version=version,
            links=links,
            offers_names=offers_names,
            state_words={state.value: word for state, word in STATE_LABELS.items()},
            state_meanings={state.value: word for state, word in STATE_MEANINGS.items()},
            phase_words=PHASE_LABELS,
        )
        self._index = environment.get_template("index.html").render(settings=_settings(links)).encode()
        self._table_template = environment.get_template("table.html")

    def routes(self) -> list[BaseRoute]:
        """What is served."""
        return [
            Route("/", self._page),
            Route("/table", self._table),
            Route("/static/{name}", self._file),
        ]

    def _page(self, request: Request) -> Response:
        return cached_answer(request, self._index, "text/html; charset=utf-8")

    def _table(self, request: Request) -> Response:
        snapshot = self._snapshot()
        shown = RenderContext.of(self._identifiers, snapshot)
        body = self._table_template.render(
            at=snapshot.at,
            zone=time.strftime("%Z", time.localtime(snapshot.at)),
            summary=fields.summary(snapshot),
            beams_dropped=snapshot.beams_dropped,
            cases=[
                (render(fields.CASE, case, shown), [render(fields.BEAM, beam, shown) for beam in case.beams])
                for case in fields.cases(snapshot)
            ],
            ended=[render(fields.ENDED, run, shown) for run in reversed(snapshot.ended)],
            **source_parts(snapshot, shown),
        )
        return cached_answer(request, body.encode(), "text/html; charset=utf-8")

    def _file(self, request: Request) -> Response:
        found = self._static.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("Not Found", 404)
        body, media_type = found
        return cached_answer(request, body, media_type)


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Read once: a request must not touch the disk."""
    files = (resources.files("exporter.web") / "static").iterdir()
    named = ((file, "." + file.name.rpartition(".")[2]) for file in files)
    return {file.name: (file.read_bytes(), _MEDIA_TYPES[end]) for file, end in named if end in _MEDIA_TYPES}


def _settings(links: PageLinks) -> str:
    """What the script needs to know, as JSON."""
    settings: dict[str, Any] = {
        "runbooks": {reason: links.runbook(reason) for reason in (*REASON_TEXTS, "stalled", "waiting")},
        "states": {state.value: {"word": STATE_LABELS[state], "meaning": STATE_MEANINGS[state]} for state in BeamState},
        "phases": dict(PHASE_LABELS),
        "reasons": dict(REASON_TEXTS),
    }
    return json.dumps(settings)


def duration(seconds: float | None) -> str:
    """``3 min 20 s``, ``1 h 05 min``; empty where it is not known."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def clock(at: float | None, now: float) -> str:
    """Time of day in this machine's zone, with the date where it is not today's; empty where it is not known."""
    if at is None:
        return ""
    then = time.localtime(at)
    today = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", then)


def percent(ratio: float) -> str:
    """Whole percent, cut and not rounded: 100 % is over."""
    return f"{int(ratio * 100 + 1e-9)} %"
