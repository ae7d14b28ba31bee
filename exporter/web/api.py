"""``/api/v1``: the store as JSON, and the description of it.

Every answer comes from one snapshot in memory. Its ``at`` is when this content was first seen: an answer that says the
same as the last one to the same question is that answer, byte for byte, so its strong ETag holds and a client that has
it gets 304. On a store where something runs, estimates move, and so does the ETag.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from exporter.beams.snapshot import BeamState, StoreSnapshot
from exporter.privacy.identifiers import Identifiers
from exporter.sources.tail_lines import LAST_LINE_CHARACTERS, LAST_LINES, last_lines
from exporter.web import fields
from exporter.web.content_negotiation import gzip_accepted
from exporter.web.fields import Json, RenderContext, render

PREFIX = "/api/v1"
_SEARCHED = (
    "case_id",
    "beam_id",
    "source",
    "state",
    "reason",
    "reason_text",
    "failure_text",
    "status",
    "hpc_job_id",
    "log_path",
    "output_path",
)
"""Fields in which ``text`` is looked for."""
_ANSWERS_REMEMBERED = 256
_GZIP_LEVEL = 1
_JSON = "application/json"
_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


class _Refused(Exception):
    """A question that has no answer; the message says why."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


def compact(content: object) -> bytes:
    """JSON without blanks. Ids and texts must be encodable as UTF-8 (see ``RenderContext``)."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class Api:
    """The answers.

    Args:
        snapshot: takes a snapshot of the store; called once per answer, in a worker thread.
        identifiers: how ids, paths and texts are shown.
        version: the exporter's.
    """

    def __init__(self, snapshot: Callable[[], StoreSnapshot], identifiers: Identifiers, version: str) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._description = compact(openapi(version))
        self._first_seen: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """What is served."""
        return [
            Route(f"{PREFIX}/beams", self._route(self._beams)),
            Route(f"{PREFIX}/beams/{{path:path}}", self._route(self._beam)),
            Route(f"{PREFIX}/cases", self._route(self._cases)),
            Route(f"{PREFIX}/sources", self._route(self._sources)),
            Route(f"{PREFIX}/openapi.json", self._describe),
        ]

    def _route(self, content: Callable[[Request, StoreSnapshot, RenderContext], Json]) -> Callable[[Request], Any]:
        def answer(request: Request) -> Response:
            snapshot = self._snapshot()
            try:
                said = content(request, snapshot, RenderContext.of(self._identifiers, snapshot))
            except _Refused as refused:
                body = compact({"error": str(refused)})
                return Response(body, refused.status_code, _HEADERS, _JSON)
            return cached_answer(request, self._dated(request, said, snapshot.at))

        async def in_turn(request: Request) -> Response:
            # As with scrapes: several at once would all be late, and slow the followers.
            async with self._one_at_a_time:
                return await run_in_threadpool(answer, request)

        return in_turn

    def _dated(self, request: Request, content: Json, at: float) -> bytes:
        """The body, with the time from which on it has been the answer."""
        text = compact(content)
        digest, question = hashlib.blake2b(text, digest_size=16).digest(), f"{request.url.path}?{request.url.query}"
        before = self._first_seen.pop(question, None)
        if before is not None and before[0] == digest:
            at = before[1]
        self._first_seen[question] = digest, at
        if len(self._first_seen) > _ANSWERS_REMEMBERED:
            self._first_seen.popitem(last=False)
        return b'{"at":%s,%s' % (compact(round(at, 3)), text[1:])

    def _beams(self, request: Request, snapshot: StoreSnapshot, shown: RenderContext) -> Json:
        asked = _Filter(request)
        beams = (render(fields.BEAM, beam, shown) for beam in snapshot.beams if asked.wants(beam.state.value))
        ended = (render(fields.ENDED, run, shown) for run in snapshot.ended if asked.wants(run.outcome))
        return {
            "summary": fields.summary(snapshot),
            "beams_dropped": snapshot.beams_dropped,
            "beams": [beam for beam in beams if asked.matches(beam)],
            "ended": [run for run in ended if asked.matches(run)],
        }

    def _beam(self, request: Request, snapshot: StoreSnapshot, shown: RenderContext) -> Json:
        case_id, beam_id = _ids(request)
        for beam in snapshot.beams:
            if shown.beam(beam.key.beam_id) == beam_id and shown.case(beam.key.case_id) == case_id:
                lines = shown.lines(last_lines(beam.recent))
                return {"beam": render(fields.BEAM, beam, shown), "recent_lines": lines}
        raise _Refused(404, "there is no such beam, or no longer")

    def _cases(self, request: Request, snapshot: StoreSnapshot, shown: RenderContext) -> Json:
        return {"cases": [render(fields.CASE, case, shown) for case in fields.cases(snapshot)]}

    def _sources(self, request: Request, snapshot: StoreSnapshot, shown: RenderContext) -> Json:
        return source_parts(snapshot, shown)

    def _describe(self, request: Request) -> Response:
        return cached_answer(request, self._description)


def source_parts(snapshot: StoreSnapshot, shown: RenderContext) -> Json:
    """Sources and database."""
    database = snapshot.database
    return {
        "sources": [render(fields.SOURCE, source, shown) for source in fields.sources(snapshot)],
        "database": None if database is None else render(fields.DATABASE, database, shown),
    }


class _Filter:
    """What a question wants of the beams: ``state`` (several, or with commas), ``case``, ``text``."""

    def __init__(self, request: Request) -> None:
        asked = request.query_params
        self._states = {word for value in asked.getlist("state") for word in value.split(",") if word}
        self._case = asked.get("case")
        self._text = asked.get("text", "").casefold()
        if unknown := self._states - {state.value for state in BeamState}:
            known = ", ".join(state.value for state in BeamState)
            raise _Refused(400, f"state: {', '.join(sorted(unknown))!r} is unknown; states: {known}")

    def wants(self, state: str) -> bool:
        return not self._states or state in self._states

    def matches(self, thing: Mapping[str, Any]) -> bool:
        if self._case is not None and thing["case_id"] != self._case:
            return False
        return not self._text or any(self._text in str(thing.get(name) or "").casefold() for name in _SEARCHED)


def _ids(request: Request) -> tuple[str, str]:
    """Case and beam of the path. An id may hold a slash, so they are told apart before they are decoded."""
    raw: bytes = request.scope["raw_path"]
    parts = raw.decode("ascii").removeprefix(f"{PREFIX}/beams/").split("/")
    if len(parts) != 2:
        raise _Refused(404, f"there is no such thing; ask for {PREFIX}/beams/CASE/BEAM")
    return unquote(parts[0]), unquote(parts[1])


def cached_answer(request: Request, body: bytes, media_type: str = _JSON) -> Response:
    """An answer with a strong ETag of its bytes; 304 to a client that has them, compressed where that is accepted."""
    tag = hashlib.blake2b(body, digest_size=16).hexdigest()
    compress = gzip_accepted(request.headers)
    etag = f'"{tag}-gzip"' if compress else f'"{tag}"'
    headers = {**_HEADERS, "ETag": etag}
    if _has(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if compress:
        body = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=media_type)


def _has(conditions: Iterable[str], etag: str) -> bool:
    """Whether ``If-None-Match`` names this ETag; a proxy may have made it a weak one."""
    tags = {tag.strip().removeprefix("W/") for condition in conditions for tag in condition.split(",")}
    return etag in tags or "*" in tags


def openapi(version: str) -> Json:
    """The description of the API, OpenAPI 3.1."""
    at = {**fields.TIME, "description": "From when on this answer has been as it is."}
    lines = {
        "type": "array",
        "maxItems": LAST_LINES,
        "items": {"type": "string", "maxLength": LAST_LINE_CHARACTERS},
        "description": "The last lines of its log, oldest first.",
    }
    database = {"anyOf": [_reference("Database"), {"type": "null"}], "description": "The mirror; null without one."}
    of_pseudonyms = {"type": "object", "additionalProperties": fields.TEXT}
    schemas = {
        "Beam": fields.object_schema(fields.BEAM, "One beam."),
        "EndedRun": fields.object_schema(fields.ENDED, "A run that ended while the exporter watched."),
        "Case": fields.object_schema(fields.CASE, "One case."),
        "Source": fields.object_schema(fields.SOURCE, "Where logs are read."),
        "Database": fields.object_schema(fields.DATABASE, "The communicator's database, as far as it is written to."),
        "Summary": fields.SUMMARY_SCHEMA,
        "Beams": fields.strict_object(
            {
                "at": at,
                "summary": _reference("Summary"),
                "beams_dropped": {**fields.COUNT, "description": "Beams beyond `max_beams`, which are not shown."},
                "beams": {"type": "array", "items": _reference("Beam")},
                "ended": {
                    "type": "array",
                    "items": _reference("EndedRun"),
                    "description": "The last runs that ended, oldest first; bounded.",
                },
            },
            "Beams and ended runs.",
        ),
        "BeamAndLines": fields.strict_object(
            {"at": at, "beam": _reference("Beam"), "recent_lines": lines}, "One beam and what its log said last."
        ),
        "Cases": fields.strict_object({"at": at, "cases": {"type": "array", "items": _reference("Case")}}, "Cases."),
        "Sources": fields.strict_object(
            {"at": at, "sources": {"type": "array", "items": _reference("Source")}, "database": database}, "Sources."
        ),
        "Names": fields.strict_object(
            {
                "cases": {**of_pseudonyms, "description": "Ids of cases by their pseudonyms."},
                "beams": {**of_pseudonyms, "description": "Ids of beams by their pseudonyms."},
            },
            "The ids behind the pseudonyms of the beams on the store and of the last runs that ended.",
        ),
        "Events": {**fields.TEXT, "description": "Events, each with JSON as its data."},
        "Error": fields.strict_object({"error": fields.TEXT}, "What was wrong with the question."),
    }
    states = {"type": "array", "items": fields.STATE}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MQI beam exporter",
            "version": version,
            "description": "How far Monte Carlo dose simulations are. Times are UTC epoch seconds, ratios 0..1; null "
            "is what is not known. Answers that may be kept have a strong ETag.",
        },
        "paths": {
            f"{PREFIX}/beams": _get(
                "listBeams",
                "Beams on the store and the last runs that ended.",
                "Beams",
                _query("state", "Only beams in these states; may be repeated.", {**states, "uniqueItems": True}),
                _query("case", "Only this case.", fields.TEXT),
                _query("text", f"Only where this stands in one of: {', '.join(_SEARCHED)}.", fields.TEXT),
                errors={"400": "A state is unknown."},
            ),
            f"{PREFIX}/beams/{{case_id}}/{{beam_id}}": _get(
                "getBeam",
                "One beam and the last lines of its log.",
                "BeamAndLines",
                _in_path("case_id"),
                _in_path("beam_id"),
                errors={"404": "There is no such beam."},
            ),
            f"{PREFIX}/cases": _get("listCases", "Cases on the store.", "Cases"),
            f"{PREFIX}/sources": _get("listSources", "Sources of logs, and the database.", "Sources"),
            f"{PREFIX}/names": _get(
                "listNames",
                "The ids behind pseudonyms, for the users of privacy.resolve_for; logged and counted, never kept.",
                "Names",
                errors={
                    "403": "The user may not see ids.",
                    "404": "Nobody may see ids here, or they are shown as they are.",
                },
                kept=False,
            ),
            f"{PREFIX}/events": _get(
                "listen",
                "The store as it changes, as server-sent events: state, then change, and beat where nothing does.",
                "Events",
                errors={"503": "Too many listen already; poll instead."},
                kept=False,
                media_type="text/event-stream",
            ),
        },
        "components": {"schemas": schemas},
    }


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(
    operation: str,
    meaning: str,
    schema: str,
    *parameters: Json,
    errors: Mapping[str, str] | None = None,
    kept: bool = True,
    media_type: str = _JSON,
) -> Json:
    """A path that is asked with GET.

    Args:
        kept: whether a client may keep the answer, so that it has an ETag.
    """

    def answer(meaning: str, schema: str, media_type: str = _JSON) -> Json:
        return {"description": meaning, "content": {media_type: {"schema": _reference(schema)}}}

    return {
        "get": {
            "operationId": operation,
            "summary": meaning,
            "parameters": list(parameters),
            "responses": {
                "200": answer(meaning, schema, media_type),
                **({"304": {"description": "As the client has it."}} if kept else {}),
                **{status: answer(text, "Error") for status, text in (errors or {}).items()},
            },
        }
    }


def _query(name: str, meaning: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": meaning, "schema": schema}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": fields.TEXT}
