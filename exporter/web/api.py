"""``/api/v1``: beams, cases and sources as JSON.

Every answer comes from one snapshot in memory. Its ``at`` is when this content was first seen: an answer with the same
content as the last one to the same query is identical to it, byte for byte. So its strong ETag holds, and a client that
has it gets 304. While a beam runs, its estimates change, and so does the ETag.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from exporter.beams.cases import group_by_case
from exporter.beams.explanation import Explanation
from exporter.beams.snapshot import BeamKey, BeamState, StoreSnapshot
from exporter.polling.path_check import PathCheck
from exporter.privacy.identifiers import Identifiers
from exporter.sources.tail_lines import last_lines
from exporter.web import overview_fields
from exporter.web.api_schema import Json, RenderContext, render
from exporter.web.beam_fields import BEAM, ENDED_RUN
from exporter.web.csv_export import csv_response
from exporter.web.explanation import render_explanation
from exporter.web.openapi import PREFIX, SEARCHED_FIELDS, openapi
from exporter.web.responses import CACHE_HEADERS, JSON_TYPE, cacheable_response, compact_json

_ANSWERS_REMEMBERED = 256
_NO_BEAM = "there is no such beam, or no longer"

Explain: TypeAlias = Callable[[BeamKey], tuple[Explanation, Sequence[PathCheck]] | None]
"""Returns the evidence about a beam, and what was found at each path of its log; ``None`` for an unknown beam."""


class _QueryError(Exception):
    """The query has no answer; the message says why."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class Api:
    """The routes of the API.

    Args:
        snapshot: makes a snapshot of all beams; called once per answer, in a worker thread.
        explain: returns the evidence about a beam.
        identifiers: turns ids, paths and texts into what may leave the process.
        version: the exporter's.
    """

    def __init__(
        self, snapshot: Callable[[], StoreSnapshot], explain: Explain, identifiers: Identifiers, version: str
    ) -> None:
        self._snapshot = snapshot
        self._explain = explain
        self._identifiers = identifiers
        self._description = compact_json(openapi(version))
        self._first_seen: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """List the routes."""
        return [
            Route(f"{PREFIX}/beams", self._route(self._beams)),
            Route(f"{PREFIX}/beams/{{path:path}}/explain", self._route(self._beam)),
            Route(f"{PREFIX}/beams/{{path:path}}", self._route(self._beam)),
            Route(f"{PREFIX}/cases", self._route(self._cases)),
            Route(f"{PREFIX}/sources", self._route(self._sources)),
            Route(f"{PREFIX}/openapi.json", self._describe),
        ]

    def _route(self, content: Callable[[Request, StoreSnapshot, RenderContext], Json]) -> Callable[[Request], Any]:
        def answer(request: Request) -> Response:
            snapshot = self._snapshot()
            try:
                found = content(request, snapshot, RenderContext.of(self._identifiers, snapshot))
            except _QueryError as error:
                body = compact_json({"error": str(error)})
                return Response(body, error.status_code, CACHE_HEADERS, JSON_TYPE)
            if "beams" in found and request.query_params.get("format") == "csv":
                return csv_response(request, "beams", BEAM, found["beams"])
            return cacheable_response(request, self._with_time(request, found, snapshot.at))

        async def one_at_a_time(request: Request) -> Response:
            # As with scrapes: several at once would all be late, and slow the pollers.
            async with self._one_at_a_time:
                return await run_in_threadpool(answer, request)

        return one_at_a_time

    def _with_time(self, request: Request, content: Json, at: float) -> bytes:
        """Encode the content, with the time at which it was first seen."""
        text = compact_json(content)
        digest, query = hashlib.blake2b(text, digest_size=16).digest(), f"{request.url.path}?{request.url.query}"
        before = self._first_seen.pop(query, None)
        if before is not None and before[0] == digest:
            at = before[1]
        self._first_seen[query] = digest, at
        if len(self._first_seen) > _ANSWERS_REMEMBERED:
            self._first_seen.popitem(last=False)
        return b'{"at":%s,%s' % (compact_json(round(at, 3)), text[1:])

    def _beams(self, request: Request, snapshot: StoreSnapshot, context: RenderContext) -> Json:
        query = _BeamFilter(request)
        beams = (render(BEAM, beam, context) for beam in snapshot.beams if query.has_state(beam.state.value))
        ended = (render(ENDED_RUN, run, context) for run in snapshot.ended if query.has_state(run.outcome))
        return {
            "summary": overview_fields.summary(snapshot, context.ends),
            "beams_dropped": snapshot.beams_dropped,
            "beams": [beam for beam in beams if query.matches(beam)],
            "ended": [run for run in ended if query.matches(run)],
        }

    def _beam(self, request: Request, snapshot: StoreSnapshot, context: RenderContext) -> Json:
        case_id, beam_id, explains = _beam_path(request)
        beams = (each for each in snapshot.beams if context.beam(each.key.beam_id) == beam_id)
        beam = next((each for each in beams if context.case(each.key.case_id) == case_id), None)
        if beam is None:
            raise _QueryError(404, _NO_BEAM)
        if explains:
            return self._explanation(beam.key, context)
        return {"beam": render(BEAM, beam, context), "recent_lines": context.lines(last_lines(beam.recent))}

    def _explanation(self, key: BeamKey, context: RenderContext) -> Json:
        explained = self._explain(key)
        if explained is None:
            raise _QueryError(404, _NO_BEAM)
        return render_explanation(*explained, context)

    def _cases(self, request: Request, snapshot: StoreSnapshot, context: RenderContext) -> Json:
        cases = group_by_case(snapshot, context.ends)
        return {"cases": [render(overview_fields.CASE, case, context) for case in cases]}

    def _sources(self, request: Request, snapshot: StoreSnapshot, context: RenderContext) -> Json:
        return overview_fields.render_sources(snapshot, context)

    def _describe(self, request: Request) -> Response:
        return cacheable_response(request, self._description)


class _BeamFilter:
    """Selects beams by the query parameters ``state`` (several, or with commas), ``case`` and ``text``."""

    def __init__(self, request: Request) -> None:
        query = request.query_params
        self._states = {word for value in query.getlist("state") for word in value.split(",") if word}
        self._case = query.get("case")
        self._text = query.get("text", "").casefold()
        if unknown := self._states - {state.value for state in BeamState}:
            known = ", ".join(state.value for state in BeamState)
            raise _QueryError(400, f"state: {', '.join(sorted(unknown))!r} is unknown; states: {known}")

    def has_state(self, state: str) -> bool:
        return not self._states or state in self._states

    def matches(self, thing: Mapping[str, Any]) -> bool:
        if self._case is not None and thing["case_id"] != self._case:
            return False
        return not self._text or any(self._text in str(thing.get(name) or "").casefold() for name in SEARCHED_FIELDS)


def _beam_path(request: Request) -> tuple[str, str, bool]:
    """Case and beam of the path, and whether it ends with ``/explain``.

    An id may hold a slash, so the parts are split before they are decoded.
    """
    raw: bytes = request.scope["raw_path"]
    case_id, *others = raw.decode("ascii").removeprefix(f"{PREFIX}/beams/").split("/")
    explains = len(others) == 2 and others[1] == "explain"
    if len(others) != 1 and not explains:
        raise _QueryError(404, f"there is no such path; ask for {PREFIX}/beams/CASE/BEAM")
    return unquote(case_id), unquote(others[0]), explains
