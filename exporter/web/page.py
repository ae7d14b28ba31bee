"""The web page: ``/``, which its script fills, and ``/table`` for browsers without scripts.

Text from logs and the database is escaped (here) or set as text (in the script). Only scripts and styles in ``static/``
may run. Links are relative, so that a reverse proxy may serve the page below a path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.beams.advice import SITUATIONS, WHAT_TO_DO
from exporter.beams.labels import PHASE_LABELS, REASON_TEXTS, STATE_LABELS, STATE_MEANINGS
from exporter.beams.snapshot import BeamState, StoreSnapshot
from exporter.privacy.identifiers import Identifiers
from exporter.web import overview_fields
from exporter.web.api_schema import Json, RenderContext, render
from exporter.web.beam_fields import BEAM, ENDED_RUN
from exporter.web.responses import HTML_TYPE, cacheable_response
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
    """Links to other servers, and the clock: what the configuration says of the page.

    Args:
        grafana_url: the dashboards; ``None`` for no link.
        runbook_url: folder of the runbooks; ``None`` for those that this server has itself.
        time_format: ``24h``, ``12h``, or ``auto`` for what the browser's locale has.
    """

    grafana_url: str | None = None
    runbook_url: str | None = None
    time_format: str = "auto"

    def runbook(self, reason: str) -> str:
        """Return the URL of the runbook for a failure reason or another situation, such as ``stalled``."""
        return f"{(self.runbook_url or PATH).rstrip('/')}/{runbook_name(reason)}.md"


class Page:
    """The routes ``/``, ``/table``, ``/help``, ``/what-to-do`` and ``/static``.

    Args:
        snapshot: makes a snapshot of all beams, for the table.
        identifiers: turns ids, paths and texts into what may leave the process.
        links: links to other servers.
        version: the exporter's.
        can_reveal_ids: whether some users may see the ids behind pseudonyms.
        keeps_history: whether there is a history of runs.
    """

    def __init__(
        self,
        snapshot: Callable[[], StoreSnapshot],
        identifiers: Identifiers,
        links: PageLinks,
        version: str,
        *,
        can_reveal_ids: bool = False,
        keeps_history: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._static = _static_files()
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("exporter.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters.update(
            duration=duration,
            clock=partial(clock, time_format=links.time_format),
            percent=percent,
            escaped=lambda text: quote(text, safe=""),
        )
        environment.globals.update(
            version=version,
            links=links,
            can_reveal_ids=can_reveal_ids,
            state_words={state.value: word for state, word in STATE_LABELS.items()},
            state_meanings={state.value: word for state, word in STATE_MEANINGS.items()},
            phase_words=PHASE_LABELS,
        )
        titles = {reason: text[:1].upper() + text[1:] for reason, text in {**REASON_TEXTS, **SITUATIONS}.items()}
        self._documents = {
            "help": environment.get_template("help.html").render(title="Help").encode(),
            "what-to-do": environment.get_template("what_to_do.html")
            .render(title="What to do", advice=WHAT_TO_DO, titles=titles)
            .encode(),
        }
        self._index = environment.get_template("index.html").render(settings=_settings(links, keeps_history)).encode()
        self._table_template = environment.get_template("table.html")

    def routes(self) -> list[BaseRoute]:
        """List the routes."""
        return [
            Route("/", self._page),
            Route("/table", self._table),
            *(Route(f"/{name}", self._document) for name in self._documents),
            Route("/static/{name}", self._file),
        ]

    def _page(self, request: Request) -> Response:
        return cacheable_response(request, self._index, HTML_TYPE)

    def _document(self, request: Request) -> Response:
        return cacheable_response(request, self._documents[request.url.path.rpartition("/")[2]], HTML_TYPE)

    def _table(self, request: Request) -> Response:
        snapshot = self._snapshot()
        context = RenderContext.of(self._identifiers, snapshot)
        body = self._table_template.render(
            at=snapshot.at,
            zone=time.strftime("%Z", time.localtime(snapshot.at)),
            summary=overview_fields.summary(snapshot, context.ends),
            beams_dropped=snapshot.beams_dropped,
            beams=sorted((render(BEAM, beam, context) for beam in snapshot.beams), key=_urgency),
            ended=[render(ENDED_RUN, run, context) for run in reversed(snapshot.ended)],
            **overview_fields.render_sources(snapshot, context),
        )
        return cacheable_response(request, body.encode(), HTML_TYPE)

    def _file(self, request: Request) -> Response:
        found = self._static.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("Not Found", 404)
        body, media_type = found
        return cacheable_response(request, body, media_type)


_URGENCY = ("failed", "stalled", "expired", "unreachable", "running", "starting", "waiting", "succeeded")


def _urgency(beam: Json) -> tuple[bool, int, float]:
    """Sort beams that need attention first, then by state, then by expected end."""
    end = beam["expected_end"]
    return not beam["needs_attention"], _URGENCY.index(beam["state"]), float("inf") if end is None else end


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Read all static files once, so that requests do not access the disk."""
    files = (resources.files("exporter.web") / "static").iterdir()
    named = ((file, "." + file.name.rpartition(".")[2]) for file in files)
    return {file.name: (file.read_bytes(), _MEDIA_TYPES[end]) for file, end in named if end in _MEDIA_TYPES}


def _settings(links: PageLinks, keeps_history: bool) -> str:
    """Encode as JSON what the script needs to know."""
    settings: dict[str, Any] = {
        "time_format": links.time_format,
        "advice": dict(WHAT_TO_DO),
        "runbooks": {situation: links.runbook(situation) for situation in (*WHAT_TO_DO, "folder_missing")},
        "states": {state.value: {"word": STATE_LABELS[state], "meaning": STATE_MEANINGS[state]} for state in BeamState},
        "phases": dict(PHASE_LABELS),
        "reasons": dict(REASON_TEXTS),
        "history": keeps_history,
    }
    return json.dumps(settings)


def duration(seconds: float | None) -> str:
    """Format a duration as ``3 min 20 s`` or ``1 h 05 min``; empty where it is unknown."""
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


def clock(at: float | None, now: float, time_format: str = "auto") -> str:
    """Format a time of day in this machine's time zone; empty where it is unknown.

    Args:
        at: the time, UTC epoch seconds.
        now: today's times have no date.
        time_format: ``12h`` for a clock of twelve hours.
    """
    if at is None:
        return ""
    then = time.localtime(at)
    hours = "%I:%M %p" if time_format == "12h" else "%H:%M"
    return time.strftime(hours if then[:3] == time.localtime(now)[:3] else f"%Y-%m-%d {hours}", then)


def percent(ratio: float) -> str:
    """Format a ratio as whole percent, rounded down: 100 % means finished."""
    return f"{int(ratio * 100 + 1e-9)} %"
