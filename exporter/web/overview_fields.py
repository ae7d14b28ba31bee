"""The API's fields of cases, sources and the database, and the summary of all beams."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exporter.beams.cases import CaseView
from exporter.beams.forecast import ExpectedEnd, last_end, to_minute
from exporter.beams.snapshot import ENDED_STATES, BeamKey, BeamState, BeamView, DatabaseView, SourceView, StoreSnapshot
from exporter.metrics.metric_types import encodable
from exporter.web.api_schema import (
    BOOLEAN,
    BOOLEAN_OR_NULL,
    COUNT,
    COUNTS,
    NUMBER_OR_NULL,
    RATIO,
    TEXT,
    TEXT_OR_NULL,
    TEXTS,
    ApiField,
    Fields,
    Json,
    RenderContext,
    attribute,
    number,
    one_of,
    render,
    strict_object,
)

CASE: Fields[CaseView] = (
    ApiField("case_id", TEXT, "The case's id, or its pseudonym.", lambda case, context: context.case(case.case_id)),
    ApiField(
        "beam_ids",
        TEXTS,
        "Ids of its beams, or their pseudonyms.",
        lambda case, context: [context.beam(beam.key.beam_id) for beam in case.beams],
    ),
    ApiField(
        "states",
        strict_object({state.value: COUNT for state in BeamState}, "Number of beams in each state."),
        "Number of its beams in each state.",
        lambda case, _: state_counts(case.beams),
    ),
    ApiField(
        "progress_ratio",
        RATIO,
        "Mean estimated progress of all its beams (`mqi_case_progress_ratio`). A succeeded beam counts 1, a failed one "
        "what it reached.",
        lambda case, _: round(case.progress_ratio, 4),
    ),
    ApiField(
        "expected_end",
        NUMBER_OR_NULL,
        "When the last of its beams is expected to finish, in whole seconds; null unless that is known of all that are "
        "not finished.",
        lambda case, _: case.expected_end,
    ),
    number(
        "started_at",
        NUMBER_OR_NULL,
        "When the first of its beams started; null unless the start of every started beam is known.",
        "began_at",
    ),
)


@dataclass(frozen=True, slots=True)
class SourceAndBeams:
    """A source, and the number of beams whose logs are there."""

    source: SourceView
    beams: int


SOURCE: Fields[SourceAndBeams] = (
    ApiField("name", TEXT, "Its name in the configuration.", lambda it, _: encodable(it.source.name)),
    attribute("kind", one_of(("local", "ssh")), "The local file system or an SSH host.", "source.kind"),
    attribute("up", BOOLEAN_OR_NULL, "Whether the last poll succeeded; null before the first one.", "source.up"),
    ApiField(
        "reason",
        TEXT_OR_NULL,
        "Why it is down, in words; null while it is up and before the first poll.",
        lambda it, context: context.problem(it.source.problem),
    ),
    ApiField(
        "folders_missing",
        TEXTS,
        "Folders of its `log_path` that do not exist: no log can be found there.",
        lambda it, context: [context.path(folder) for folder in it.source.folders_missing or ()],
    ),
    number(
        "last_poll_at",
        NUMBER_OR_NULL,
        "When the last successful poll ended; after a restart, that of the earlier process until the next one.",
        "source.last_poll_at",
    ),
    number(
        "clock_offset_seconds",
        NUMBER_OR_NULL,
        "How far the clock that dates its logs is ahead of the exporter's; negative where it is behind. All times are "
        "corrected by it. Null until a log was seen growing.",
        "source.clock_offset_seconds",
    ),
    attribute("beams", COUNT, "Number of beams whose log is there."),
    attribute("polls", COUNT, "Polls since the start.", "source.poll_seconds.count"),
    number("poll_seconds_sum", {"type": "number", "minimum": 0}, "Their total duration.", "source.poll_seconds.total"),
    attribute("reconnects", COUNT, "Reconnects to the host.", "source.reconnects"),
    attribute("round_trips", COUNT, "Round trips to the host.", "source.round_trips"),
    attribute("read_bytes", COUNT, "Bytes read from logs.", "source.read_bytes"),
    ApiField("errors", COUNTS, "Errors by kind.", lambda it, _: dict(it.source.errors)),
    ApiField("anomalies", COUNTS, "Anomalies in its logs, by kind.", lambda it, _: dict(it.source.anomalies)),
)

DATABASE: Fields[DatabaseView] = (
    attribute("up", BOOLEAN, "Whether progress can be written."),
    attribute("pending_updates", COUNT, "Values waiting to be written."),
    number("last_write_at", NUMBER_OR_NULL, "When progress was last written."),
    ApiField("writes", COUNTS, "Writes by outcome.", lambda it, _: dict(it.writes)),
)

SUMMARY_SCHEMA: Json = strict_object(
    {
        **{state.value: {**COUNT, "description": f"Number of {state.value} beams."} for state in BeamState},
        "done_today": {**COUNT, "description": "Runs that succeeded since midnight in the exporter's time zone."},
        "failed_today": {**COUNT, "description": "Runs that failed since midnight in the exporter's time zone."},
        "expected_end": {
            **NUMBER_OR_NULL,
            "description": "When the last of all waiting, starting and running beams is expected to finish, in whole "
            "minutes; null unless that is known of all of them.",
        },
    },
    "Numbers over all beams, whatever the query selects.",
)


_IN_THE_QUEUE = frozenset({BeamState.WAITING, BeamState.STARTING, BeamState.RUNNING})


def state_counts(beams: Iterable[BeamView]) -> dict[str, int]:
    """Count beams by state; every state is there."""
    counts = Counter(beam.state for beam in beams)
    return {state.value: counts[state] for state in BeamState}


def summary(snapshot: StoreSnapshot, ends: Mapping[BeamKey, ExpectedEnd]) -> Json:
    """Count all beams by state, and the runs that ended today: remembered ones and those of beams still shown.

    Args:
        snapshot: all beams.
        ends: expected ends of beams.
    """
    today = _midnight(snapshot.at)
    ended = {(run.key, run.run_number): run.outcome for run in snapshot.ended if run.ended_at >= today}
    for beam in snapshot.beams:
        if beam.state in ENDED_STATES and beam.ended_at is not None and beam.ended_at >= today:
            ended[beam.key, beam.run_number] = beam.state.value
    outcomes = Counter(ended.values())
    last = last_end((beam for beam in snapshot.beams if beam.state in _IN_THE_QUEUE), ends)
    return {
        **state_counts(snapshot.beams),
        "done_today": outcomes["succeeded"],
        "failed_today": outcomes["failed"],
        "expected_end": None if last is None else to_minute(last),
    }


def _midnight(at: float) -> float:
    """When the day of ``at`` began in this machine's time zone."""
    day = time.localtime(at)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))


def render_sources(snapshot: StoreSnapshot, context: RenderContext) -> Json:
    """Render all sources, and the database or null."""
    beams = Counter(beam.source for beam in snapshot.beams)
    database = snapshot.database
    return {
        "sources": [render(SOURCE, SourceAndBeams(source, beams[source.name]), context) for source in snapshot.sources],
        "database": None if database is None else render(DATABASE, database, context),
    }
