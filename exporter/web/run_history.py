"""``/api/v1/runs``: the history of runs as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.beams.snapshot import EndedRun, StoreSnapshot
from exporter.persistence.history import HistoryUnavailable, RunHistory, parse_since
from exporter.privacy.identifiers import Identifiers
from exporter.web.api_schema import (
    COUNT_OR_NULL,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    ApiField,
    Fields,
    Json,
    RenderContext,
    attribute,
    number,
    render,
)
from exporter.web.beam_fields import ENDED_RUN
from exporter.web.csv_export import csv_response
from exporter.web.responses import CACHE_HEADERS, JSON_TYPE, cacheable_response, compact_json

PATH = "/api/v1/runs"
DEFAULT_LIMIT, LARGEST_LIMIT = 1000, 10_000

RUN: Fields[EndedRun] = (
    *ENDED_RUN,
    attribute("dialect", TEXT, "Dialect of its log."),
    attribute("batches", COUNT_OR_NULL, "Batches that were finished."),
    attribute("particles", COUNT_OR_NULL, "Histories of the run as far as announced."),
    number("seconds_per_batch", NUMBER_OR_NULL, "Mean duration of a batch."),
    *(
        number(f"engine_{part}_seconds", NUMBER_OR_NULL, meaning, f"engine_times.{part}_seconds")
        for part, meaning in (
            ("initialization", "Duration of the initialization, as the engine measured it."),
            ("simulation", "Duration of the simulation, as the engine measured it."),
            ("output", "Duration of writing the dose, as the engine measured it."),
            ("total", "Duration of the whole process, as the engine measured it."),
        )
    ),
    ApiField(
        "dose_path",
        TEXT_OR_NULL,
        "The last dose file, as the log names it.",
        lambda run, context: context.path(run.dose_path),
    ),
    ApiField(
        "output_path",
        TEXT_OR_NULL,
        "The dose file that the output check found.",
        lambda run, context: context.path(None if run.output_file is None else run.output_file.path),
    ),
    ApiField(
        "output_size_bytes",
        COUNT_OR_NULL,
        "Its size.",
        lambda run, _: None if run.output_file is None else run.output_file.size_bytes,
    ),
)
"""One run of the history; ``mqi-exporter runs`` prints the same fields."""


def render_runs(runs: list[EndedRun], identifiers: Identifiers) -> list[Json]:
    """Return runs as JSON objects."""
    context = RenderContext(identifiers, 0.0)
    return [render(RUN, run, context) for run in runs]


def find_runs(
    history: RunHistory,
    identifiers: Identifiers,
    case: str | None,
    since: float | None,
    limit: int | None,
    *,
    beam: str | None = None,
    known_cases: Iterable[str] = (),
) -> list[EndedRun]:
    """Return runs that ended, newest first.

    Args:
        history: where they are looked for.
        identifiers: how ids are shown.
        case: only runs of the case with this id, as shown.
        since: only runs that ended then or later, UTC epoch seconds.
        limit: at most so many.
        beam: only runs of beams with this id, as shown.
        known_cases: ids of cases that are looked at first: a case behind a pseudonym that is not one of them is found
            only by decrypting every run.

    Raises:
        exporter.persistence.history.HistoryUnavailable: the history cannot be read.
    """

    def wanted(run: EndedRun) -> bool:
        return (case is None or identifiers.case(run.key.case_id) == case) and (
            beam is None or identifiers.beam(run.key.beam_id) == beam
        )

    # Under pseudonyms an id itself must find nothing: that would tell whether a guessed one is behind a pseudonym.
    case_id = (
        next((each for each in known_cases if identifiers.case(each) == case), None) if history.encrypted else case
    )
    return history.runs(case_id=case_id, since=since, limit=limit, wanted=wanted)


class RunHistoryApi:
    """The route.

    Args:
        history: the history; ``None`` where none is kept.
        snapshot: makes a snapshot of all beams.
        identifiers: turns ids and paths into what may leave the process.
        clock: UTC epoch seconds.
    """

    def __init__(
        self,
        history: RunHistory | None,
        snapshot: Callable[[], StoreSnapshot],
        identifiers: Identifiers,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    @property
    def route(self) -> Route:
        """The route."""
        return Route(PATH, self._answer)

    async def _answer(self, request: Request) -> Response:
        async with self._one_at_a_time:  # several at once would slow the pollers
            return await run_in_threadpool(self._answer_query, request)

    def _answer_query(self, request: Request) -> Response:
        query = request.query_params
        if self._history is None:
            return _error(404, "no history of runs is kept; state.file turns it on")
        try:
            since = None if "since" not in query else parse_since(query["since"], self._clock())
        except ValueError as error:
            return _error(400, f"since: {error}")
        limit = query.get("limit", str(DEFAULT_LIMIT))
        if not limit.isascii() or not limit.isdigit() or len(limit) > 9 or not 1 <= int(limit) <= LARGEST_LIMIT:
            return _error(400, f"limit: must be a number from 1 to {LARGEST_LIMIT}")
        try:
            runs = find_runs(
                self._history,
                self._identifiers,
                query.get("case"),
                since,
                int(limit),
                beam=query.get("beam"),
                known_cases={beam.key.case_id for beam in self._snapshot().beams} if "case" in query else (),
            )
        except HistoryUnavailable as error:
            return _error(503, f"the history of runs {error}")
        rendered = render_runs(runs, self._identifiers)
        if query.get("format") == "csv":
            return csv_response(request, "runs", RUN, rendered)
        return cacheable_response(request, compact_json({"runs": rendered}))


def _error(status_code: int, message: str) -> Response:
    return Response(compact_json({"error": message}), status_code, CACHE_HEADERS, JSON_TYPE)
