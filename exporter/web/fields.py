"""What the API says of a beam, a case, a source: each field's name, schema, meaning and value, declared once.

The answers and the OpenAPI description are both made from these tables, so neither can know a field that the other does
not. Names are an interface: snake_case, units in the name where a number has one, times UTC epoch seconds.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from exporter.beams.cases import case_progress
from exporter.beams.labels import dose_text, output_text, reason_text
from exporter.beams.snapshot import (
    ENDED_STATES,
    BeamState,
    BeamView,
    DatabaseView,
    EndedRun,
    OutputState,
    SourceView,
    StoreSnapshot,
)
from exporter.logs.events import DIALECTS, FAILURE_REASONS, PHASES
from exporter.metrics.metric_types import encodable
from exporter.privacy.identifiers import Identifiers
from exporter.web.waiting import WAITING_REASONS, WaitingReason, explain_waiting, needs_attention

Json: TypeAlias = dict[str, Any]
Thing = TypeVar("Thing")

_UNFORESEEABLE = frozenset({BeamState.STALLED, BeamState.EXPIRED})
"""States in which nobody can say when the beam will be done, whatever its batches took until then."""


@dataclass(frozen=True, slots=True)
class RenderContext:
    """How and when things are shown.

    Args:
        identifiers: turns ids, paths and texts into what may leave the process.
        at: the snapshot's time.
        sources: all sources: beams that wait are explained by them.
    """

    identifiers: Identifiers
    at: float
    sources: Sequence[SourceView] = ()

    @classmethod
    def of(cls, identifiers: Identifiers, snapshot: StoreSnapshot) -> RenderContext:
        """How the things of a snapshot are shown."""
        return cls(identifiers, snapshot.at, snapshot.sources)

    def case(self, case_id: str) -> str:
        return encodable(self.identifiers.case(case_id))

    def beam(self, beam_id: str) -> str:
        return encodable(self.identifiers.beam(beam_id))

    def path(self, path: str | None) -> str | None:
        return None if path is None else encodable(self.identifiers.path(path))

    def text(self, text: str | None) -> str | None:
        return None if text is None else encodable(self.identifiers.text(text))

    def lines(self, lines: Iterable[str]) -> list[str]:
        return [encodable(line) for line in self.identifiers.lines(lines)]

    def status(self, status: str | None) -> str | None:
        return None if status is None else encodable(self.identifiers.status(status))


@dataclass(frozen=True, slots=True)
class Field(Generic[Thing]):
    """One field of an answer."""

    name: str
    schema: Json
    meaning: str
    value: Callable[[Thing, RenderContext], Any]


Fields: TypeAlias = tuple[Field[Thing], ...]


def render(fields: Fields[Thing], thing: Thing, shown: RenderContext) -> Json:
    """A thing as JSON."""
    return {field.name: field.value(thing, shown) for field in fields}


def object_schema(fields: Fields[Any], meaning: str) -> Json:
    """The JSON schema of what :func:`render` gives: every field is always there."""
    properties = {field.name: {**field.schema, "description": field.meaning} for field in fields}
    return strict_object(properties, meaning)


def strict_object(properties: Mapping[str, Json], meaning: str) -> Json:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "description": meaning,
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
COUNT: Json = {"type": "integer", "minimum": 0}
COUNT_OR_NULL: Json = {"type": ["integer", "null"], "minimum": 0}
RATIO: Json = {"type": "number", "minimum": 0, "maximum": 1}
NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
TIME: Json = {"type": "number"}
YES_OR_NO: Json = {"type": "boolean"}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}
STATE: Json = {"type": "string", "enum": [state.value for state in BeamState]}


def one_of(words: Iterable[str]) -> Json:
    """One of these words, or null."""
    return {"type": ["string", "null"], "enum": [*words, None]}


def _seconds(value: float | None) -> float | None:
    """Milliseconds are enough, and a difference in the last bits is no news."""
    return None if value is None else round(value, 3)


def expected_end(beam: BeamView, at: float) -> float | None:
    """When a beam will be done, in whole seconds; ``None`` where nobody can say."""
    if beam.remaining_seconds is None or beam.state in _UNFORESEEABLE:
        return None
    if beam.state is not BeamState.UNREACHABLE:
        return float(round(at + beam.remaining_seconds))
    # What was expected when its host was lost; once that is past, nobody has seen whether it came.
    end = float(round(beam.state_since + beam.remaining_seconds))
    return end if end > at else None


def _time_left(beam: BeamView) -> float | None:
    """Of a beam that nobody sees the last estimate is kept: it grows older, and is no time left."""
    return None if beam.state is BeamState.UNREACHABLE else _seconds(beam.remaining_seconds)


def _waiting(beam: BeamView, shown: RenderContext) -> WaitingReason | None:
    return explain_waiting(beam, shown.sources, shown.identifiers)


BEAM: Fields[BeamView] = (
    Field("case_id", TEXT, "The case's id, as shown.", lambda beam, shown: shown.case(beam.key.case_id)),
    Field("beam_id", TEXT, "The beam's id, as shown.", lambda beam, shown: shown.beam(beam.key.beam_id)),
    Field(
        "source",
        TEXT,
        "Where its log is; `unknown` until one is found.",
        lambda beam, _: encodable(beam.source),
    ),
    Field("state", STATE, "The state it is in.", lambda beam, _: beam.state.value),
    Field("state_since", TIME, "Since when.", lambda beam, _: _seconds(beam.state_since)),
    Field("reason", one_of(FAILURE_REASONS), "Why it failed; null unless it did.", lambda beam, _: beam.reason),
    Field(
        "reason_text",
        TEXT_OR_NULL,
        "The same in words.",
        lambda beam, shown: reason_text(beam.reason, shown.status(beam.row.status)),
    ),
    Field(
        "failure_text",
        TEXT_OR_NULL,
        "The line of the log that says so; null where none does.",
        lambda beam, shown: shown.text(beam.failure_text),
    ),
    Field(
        "dose_text",
        TEXT_OR_NULL,
        "In words, that a run which failed had written its dose file before; null otherwise.",
        lambda beam, _: dose_text(beam.reason, written_before_failure=beam.dose_written_before_failure),
    ),
    Field(
        "waiting_reason",
        one_of(WAITING_REASONS),
        "Why it waits; null unless it does.",
        lambda beam, shown: None if (why := _waiting(beam, shown)) is None else why.reason,
    ),
    Field(
        "waiting_text",
        TEXT_OR_NULL,
        "The same in words.",
        lambda beam, shown: None if (why := _waiting(beam, shown)) is None else why.text,
    ),
    Field(
        "needs_attention",
        YES_OR_NO,
        "Whether somebody should look at it: it failed, is stalled, expired or unreachable, or its row has said for "
        "ten minutes that it is being simulated and there is no log.",
        lambda beam, shown: needs_attention(beam, shown.sources, shown.at),
    ),
    Field("run", COUNT, "Which run of the beam, 1 is the first seen.", lambda beam, _: beam.run_number),
    Field(
        "dialect",
        {"type": "string", "enum": list(DIALECTS)},
        "The dialect of its log.",
        lambda beam, _: beam.dialect,
    ),
    Field(
        "phase",
        one_of(PHASES),
        "What the engine does; null before it says so.",
        lambda beam, _: beam.phase,
    ),
    Field(
        "batches_total", COUNT_OR_NULL, "Batches of the run, null while unknown.", lambda beam, _: beam.batches_total
    ),
    Field("batch_current", COUNT, "The batch it is in, 0 before the first.", lambda beam, _: beam.batch_current),
    Field("batches_completed", COUNT, "Batches that are finished.", lambda beam, _: beam.batches_completed),
    Field(
        "progress_ratio",
        RATIO,
        "Progress by the plan: started batches of all. Up to one batch ahead of the truth.",
        lambda beam, _: round(beam.progress_ratio, 4),
    ),
    Field(
        "estimated_ratio",
        RATIO,
        "Estimated progress; 1 only when the run has succeeded.",
        lambda beam, _: round(beam.estimated_ratio, 4),
    ),
    Field(
        "remaining_seconds",
        NUMBER_OR_NULL,
        "Estimated time left, null while unknown, while its source is down and after the end.",
        lambda beam, _: _time_left(beam),
    ),
    Field(
        "expected_end",
        NUMBER_OR_NULL,
        "When it will be done, in whole seconds; null where that is unknown, and while it is stalled or expired. While "
        "its source is down, what was expected before; null once that is past.",
        lambda beam, shown: expected_end(beam, shown.at),
    ),
    Field(
        "started_at",
        NUMBER_OR_NULL,
        "When the run began; null where nobody knows, since its log stood there when it was first looked at.",
        lambda beam, _: _seconds(beam.began_at),
    ),
    Field("ended_at", NUMBER_OR_NULL, "When it ended, null until then.", lambda beam, _: _seconds(beam.ended_at)),
    Field(
        "last_progress_at",
        NUMBER_OR_NULL,
        "When the last line about a batch or a phase arrived.",
        lambda beam, _: _seconds(beam.last_progress_at),
    ),
    Field(
        "stall_threshold_seconds",
        {"type": "number"},
        "Silence longer than this is a stall.",
        lambda beam, _: _seconds(beam.stall_threshold_seconds),
    ),
    Field(
        "batch_duration_seconds",
        NUMBER_OR_NULL,
        "Mean of the batches finished in this run, without the first one (warm-up) as soon as two others are known.",
        lambda beam, _: _seconds(beam.batch_duration_seconds),
    ),
    Field("particles_per_batch", COUNT_OR_NULL, "Histories in a full batch.", lambda beam, _: beam.particles_per_batch),
    Field("particles", COUNT_OR_NULL, "Histories of the whole run.", lambda beam, _: beam.particles),
    Field(
        "dose_path",
        TEXT_OR_NULL,
        "The dose file that the engine says it has written, as printed; null until then. Of several the last.",
        lambda beam, shown: shown.path(beam.dose_path),
    ),
    Field(
        "dose_dimensions",
        TEXT_OR_NULL,
        "The dose grid's size as `400x400x1`, where the log says so.",
        lambda beam, _: beam.dose_dimensions,
    ),
    Field(
        "dose_max_gy",
        NUMBER_OR_NULL,
        "Its largest dose in Gy, where the log says so.",
        lambda beam, _: beam.dose_max_gy,
    ),
    Field("doses_written", COUNT, "Dose files written in this run.", lambda beam, _: beam.doses_written),
    Field(
        "engine_initialization_seconds",
        NUMBER_OR_NULL,
        "How long the engine says that its initialization took, added up over the beams of the process.",
        lambda beam, _: _seconds(beam.engine_times.initialization_seconds),
    ),
    Field(
        "engine_simulation_seconds",
        NUMBER_OR_NULL,
        "The same of the simulation.",
        lambda beam, _: _seconds(beam.engine_times.simulation_seconds),
    ),
    Field(
        "engine_output_seconds",
        NUMBER_OR_NULL,
        "The same of saving the dose.",
        lambda beam, _: _seconds(beam.engine_times.output_seconds),
    ),
    Field(
        "engine_seconds",
        NUMBER_OR_NULL,
        "How long the engine says that the whole run took.",
        lambda beam, _: _seconds(beam.engine_times.total_seconds),
    ),
    Field("log_path", TEXT_OR_NULL, "Its log, null until one is found.", lambda beam, shown: shown.path(beam.log_path)),
    Field("log_size_bytes", COUNT_OR_NULL, "The log's size.", lambda beam, _: beam.log_size_bytes),
    Field(
        "log_modified_at",
        NUMBER_OR_NULL,
        "When the log was last written; its age is the time since then.",
        lambda beam, _: _seconds(beam.log_modified_at),
    ),
    Field(
        "output",
        {"type": "string", "enum": [state.value for state in OutputState]},
        "What is known of the run's dose file (`output_path`).",
        lambda beam, _: beam.output.value,
    ),
    Field(
        "output_text",
        TEXT_OR_NULL,
        "The same in words; null where there is nothing to say.",
        lambda beam, _: output_text(beam.output, beam.output_problem),
    ),
    Field(
        "output_path",
        TEXT_OR_NULL,
        "The dose file; null until it is found.",
        lambda beam, shown: None if beam.output_file is None else shown.path(beam.output_file.path),
    ),
    Field(
        "output_size_bytes",
        COUNT_OR_NULL,
        "Its size when it was found.",
        lambda beam, _: None if beam.output_file is None else beam.output_file.size_bytes,
    ),
    Field(
        "buffered",
        YES_OR_NO,
        "Its log arrives in blocks: it stands still although the simulation runs.",
        lambda beam, _: beam.log_buffered,
    ),
    Field("log_unmatched", YES_OR_NO, "Its log grows and nothing in it is known.", lambda beam, _: beam.log_unmatched),
    Field(
        "status",
        TEXT_OR_NULL,
        "The status of its row; null without one.",
        lambda beam, shown: shown.status(beam.row.status),
    ),
    Field(
        "status_mismatch",
        YES_OR_NO,
        "Log and row have disagreed about the run's end for more than a minute.",
        lambda beam, _: beam.status_mismatch,
    ),
    Field(
        "status_updated_at",
        NUMBER_OR_NULL,
        "When its row was last written.",
        lambda beam, _: _seconds(beam.row.updated_at),
    ),
    Field("hpc_job_id", TEXT_OR_NULL, "The scheduler's job.", lambda beam, shown: shown.text(beam.row.hpc_job_id)),
)

ENDED: Fields[EndedRun] = (
    Field("case_id", TEXT, "The case's id, as shown.", lambda run, shown: shown.case(run.key.case_id)),
    Field("beam_id", TEXT, "The beam's id, as shown.", lambda run, shown: shown.beam(run.key.beam_id)),
    Field("source", TEXT, "Where its log is.", lambda run, _: encodable(run.source)),
    Field("run", COUNT, "Which run of the beam.", lambda run, _: run.run_number),
    Field("outcome", {"type": "string", "enum": ["succeeded", "failed"]}, "How it ended.", lambda run, _: run.outcome),
    Field("reason", one_of(FAILURE_REASONS), "Why it failed; null unless it did.", lambda run, _: run.reason),
    Field(
        "reason_text",
        TEXT_OR_NULL,
        "The same in words.",
        lambda run, shown: reason_text(run.reason, shown.status(run.status)),
    ),
    Field(
        "started_at", NUMBER_OR_NULL, "When it began; null where nobody knows.", lambda run, _: _seconds(run.started_at)
    ),
    Field("ended_at", TIME, "When it ended.", lambda run, _: _seconds(run.ended_at)),
)


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case and its beams."""

    case_id: str
    beams: tuple[BeamView, ...]

    @property
    def began_at(self) -> float | None:
        """When its first beam began; ``None`` unless that is known of all that have begun."""
        known = [beam.began_at for beam in self.beams if beam.started_at is not None]
        return None if None in known else min(filter(None, known), default=None)

    def expected_end(self, at: float) -> float | None:
        """When its last beam will be done; ``None`` where that is unknown, or all have ended."""
        ends = [expected_end(beam, at) for beam in self.beams if beam.state not in ENDED_STATES]
        known = [end for end in ends if end is not None]
        return max(known) if known and len(known) == len(ends) else None


CASE: Fields[CaseView] = (
    Field("case_id", TEXT, "The case's id, as shown.", lambda case, shown: shown.case(case.case_id)),
    Field(
        "beam_ids",
        {"type": "array", "items": TEXT},
        "Its beams, as shown.",
        lambda case, shown: [shown.beam(beam.key.beam_id) for beam in case.beams],
    ),
    Field(
        "states",
        strict_object({state.value: COUNT for state in BeamState}, "How many beams are in each state."),
        "How many of its beams are in each state.",
        lambda case, _: state_counts(case.beams),
    ),
    Field(
        "progress_ratio",
        RATIO,
        "Mean estimated progress of all its beams (`mqi_case_progress_ratio`): one that succeeded counts 1, one that "
        "failed what it reached.",
        lambda case, _: round(case_progress(case.beams), 4),
    ),
    Field(
        "expected_end",
        NUMBER_OR_NULL,
        "When the last of its beams will be done, in whole seconds; null unless that is known of all that run.",
        lambda case, shown: case.expected_end(shown.at),
    ),
    Field(
        "started_at",
        NUMBER_OR_NULL,
        "When the first of its beams began; null unless that is known of all that have begun.",
        lambda case, _: _seconds(case.began_at),
    ),
)


@dataclass(frozen=True, slots=True)
class SourceAndBeams:
    """A source, and how many beams have their logs there."""

    source: SourceView
    beams: int


SOURCE: Fields[SourceAndBeams] = (
    Field("name", TEXT, "Its name in the configuration.", lambda it, _: encodable(it.source.name)),
    Field("kind", {"type": "string", "enum": ["local", "ssh"]}, "What it is.", lambda it, _: it.source.kind),
    Field(
        "up",
        {"type": ["boolean", "null"]},
        "Whether it answers; null before the first look.",
        lambda it, _: it.source.up,
    ),
    Field(
        "reason",
        TEXT_OR_NULL,
        "Why it does not answer, in words; null while it does, and before the first look.",
        lambda it, _: None if it.source.reason is None else encodable(it.source.reason),
    ),
    Field(
        "folders_missing",
        {"type": "array", "items": TEXT},
        "Folders of its log_path that do not exist: no log can be found there.",
        lambda it, shown: [shown.path(folder) for folder in it.source.folders_missing or ()],
    ),
    Field(
        "last_poll_at",
        NUMBER_OR_NULL,
        "The last look that worked; that of an earlier process until one of this has.",
        lambda it, _: _seconds(it.source.last_poll_at),
    ),
    Field(
        "clock_offset_seconds",
        NUMBER_OR_NULL,
        "How much the clock that dates its logs is ahead of the exporter's, negative where it is behind; all times are "
        "corrected by it. Null until a log has been seen to grow.",
        lambda it, _: _seconds(it.source.clock_offset_seconds),
    ),
    Field("beams", COUNT, "Beams whose log is there.", lambda it, _: it.beams),
    Field("polls", COUNT, "Looks since the start.", lambda it, _: it.source.poll_seconds.count),
    Field(
        "poll_seconds_sum",
        {"type": "number", "minimum": 0},
        "How long they took, all together.",
        lambda it, _: _seconds(it.source.poll_seconds.total),
    ),
    Field("reconnects", COUNT, "Connections made anew.", lambda it, _: it.source.reconnects),
    Field("round_trips", COUNT, "Round trips to the host.", lambda it, _: it.source.round_trips),
    Field("read_bytes", COUNT, "Bytes of logs read.", lambda it, _: it.source.read_bytes),
    Field("errors", COUNTS, "Errors by kind.", lambda it, _: dict(it.source.errors)),
    Field("anomalies", COUNTS, "What did not fit in its logs, by kind.", lambda it, _: dict(it.source.anomalies)),
)

DATABASE: Fields[DatabaseView] = (
    Field("up", YES_OR_NO, "Whether progress can be written.", lambda it, _: it.up),
    Field("pending_updates", COUNT, "Values that wait to be written.", lambda it, _: it.pending_updates),
    Field("last_write_at", NUMBER_OR_NULL, "When it last was.", lambda it, _: _seconds(it.last_write_at)),
    Field("writes", COUNTS, "Writes by outcome.", lambda it, _: dict(it.writes)),
)

SUMMARY_SCHEMA: Json = strict_object(
    {
        **{state.value: {**COUNT, "description": f"Beams that are {state.value}."} for state in BeamState},
        "done_today": {**COUNT, "description": "Runs that succeeded since midnight, by the exporter's clock and zone."},
        "failed_today": {**COUNT, "description": "Runs that failed since then."},
    },
    "The whole store in numbers, whatever was asked for.",
)


def state_counts(beams: Iterable[BeamView]) -> dict[str, int]:
    """How many beams are in each state; every state is there."""
    counts = Counter(beam.state for beam in beams)
    return {state.value: counts[state] for state in BeamState}


def summary(snapshot: StoreSnapshot) -> Json:
    """The store in numbers. What ended today is counted from the runs that are remembered and those still shown."""
    today = _midnight(snapshot.at)
    ended = {(run.key, run.run_number): run.outcome for run in snapshot.ended if run.ended_at >= today}
    for beam in snapshot.beams:
        if beam.state in ENDED_STATES and beam.ended_at is not None and beam.ended_at >= today:
            ended[beam.key, beam.run_number] = beam.state.value
    outcomes = Counter(ended.values())
    return {
        **state_counts(snapshot.beams),
        "done_today": outcomes["succeeded"],
        "failed_today": outcomes["failed"],
    }


def _midnight(at: float) -> float:
    """When the day of ``at`` began, in this machine's time zone."""
    day = time.localtime(at)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))


def cases(snapshot: StoreSnapshot) -> list[CaseView]:
    """The cases on the store, each with its beams, in the order in which they came."""
    beams: defaultdict[str, list[BeamView]] = defaultdict(list)
    for beam in snapshot.beams:
        beams[beam.key.case_id].append(beam)
    return [CaseView(case_id, tuple(its)) for case_id, its in beams.items()]


def sources(snapshot: StoreSnapshot) -> list[SourceAndBeams]:
    """The sources, each with the number of its beams."""
    beams = Counter(beam.source for beam in snapshot.beams)
    return [SourceAndBeams(source, beams[source.name]) for source in snapshot.sources]
