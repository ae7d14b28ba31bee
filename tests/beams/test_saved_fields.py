"""Whoever adds a field to what is kept over a restart must say if it is not saved: none is lost by oversight."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from exporter.beams.beam import Beam
from exporter.beams.counters import Counters
from exporter.beams.retention import ForgottenBeams
from exporter.beams.rules import StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.saved import SavedCounters, decode_beam, encode_beam
from exporter.beams.saved_fields import SavedEvent
from exporter.beams.snapshot import BeamRow
from exporter.beams.sources import Sources
from exporter.beams.store_data import StoreData
from exporter.logs.batch_counter import BatchCounter
from exporter.logs.events import Anomaly, BatchesAnnounced, BatchStarted, LogRead, LogReplaced, RunHead
from exporter.logs.line_prefix import PrefixFilter
from exporter.logs.parser import ParserState, TpsLogParser
from exporter.process.clock import Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.tailer import LogPosition, Tailer
from tests.support.world import BEAM

_NOT_SAVED = {
    Beam: {"row_missing_since", "recent", "view", "decisions", "copy_candidate"},
    BeamRun: {"timed"},
}
"""What a next process finds out again, or begins anew. Add a field here only if that is true of it."""

_event: TypeAdapter[SavedEvent] = TypeAdapter(SavedEvent)


def beam() -> Beam:
    """A beam in which nothing is ``None`` that holds other values."""
    beam = Beam.new(BeamRow(BEAM, 0.0), 5.0)
    beam.checkpoint = Checkpoint.of(Tailer("/a.log"), TpsLogParser())
    beam.provisional_run = BeamRun()
    return beam


def attributes(thing: object) -> set[str]:
    """Names of the attributes that ``thing`` holds, whether in slots or in a dictionary."""
    names = set(getattr(thing, "__dict__", ()))
    for each in type(thing).__mro__:
        slots = getattr(each, "__slots__", ())
        names.update((slots,) if isinstance(slots, str) else slots)
    return names - {"__dict__", "__weakref__"}


@pytest.mark.parametrize(
    ("thing", "path"),
    [
        (beam(), ()),
        (beam().run_sequence, ("run_sequence",)),
        (beam().run, ("run_sequence", "run")),
        (BeamRun(), ("provisional_run",)),
        (BatchCounter(), ("run_sequence", "run", "batches")),
        (beam().output, ("output",)),
        (beam().checkpoint, ("checkpoint",)),
        (LogPosition("", 0, 0, ""), ("checkpoint", "log")),
        (ParserState(), ("checkpoint", "parser")),
        (PrefixFilter(), ("checkpoint", "parser", "prefixes")),
    ],
    ids=lambda each: type(each).__name__,
)
def test_every_attribute_is_saved_or_named_as_not_saved(thing: Any, path: tuple[str, ...]) -> None:
    saved = json.loads(encode_beam(beam()) or b"")
    for name in path:
        saved = saved[name]
    not_saved = _NOT_SAVED.get(type(thing), set())
    assert attributes(thing) == saved.keys() | not_saved
    assert saved.keys() & not_saved == set()


@pytest.mark.parametrize(
    ("thing", "saved"),
    [
        (Sources(), {"source_states"}),
        (Counters(0.0), {each.name for each in fields(SavedCounters)} | {"rates", "ended"}),
        (ForgottenBeams(), {"by_key"}),
    ],
    ids=lambda each: type(each).__name__,
)
def test_every_attribute_of_a_store_is_saved_or_named_as_not_saved(thing: Any, saved: set[str]) -> None:
    not_saved: frozenset[str] = getattr(thing, "NOT_SAVED", frozenset())
    held = {name if name in not_saved else name.removeprefix("_") for name in attributes(thing)}
    assert held - not_saved == saved & held


def test_the_data_of_the_store_is_saved_but_for_what_a_process_begins_anew() -> None:
    begun_anew = {"rules", "_timeline", "events", "unconfirmed", "rows_from_restart", "watch_version"}
    begun_anew |= {"decisions", "keep_decisions"}
    derived = {"cases", "outputs_open", "dropped", "rows_without_room"}
    saved = {"beams", "forgotten", "sources", "counters", "unsaved"}
    assert attributes(StoreData(StoreRules(), 0.0, Timeline)) == begun_anew | derived | saved


def test_a_beam_is_itself_again() -> None:
    saved = encode_beam(beam())
    assert saved is not None
    again = decode_beam(saved)
    assert encode_beam(again) == saved
    assert (again.state_since, again.waiting_since) == (5.0, 5.0)


def test_a_field_that_is_never_saved_is_refused_when_it_is_read() -> None:
    saved = json.loads(encode_beam(beam()) or b"")
    saved["recent"] = "text"
    with pytest.raises(ValidationError):
        decode_beam(json.dumps(saved).encode())


@pytest.mark.parametrize(
    "event",
    [
        LogReplaced(),
        BatchStarted(3, None),
        BatchesAnnounced(18, 1000),
        Anomaly("line_too_long"),
        LogRead(7, line_complete=False, live=True),
        RunHead("smc", certain=False),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_is_itself_again(event: Any) -> None:
    assert _event.validate_json(_event.dump_json(event), strict=True) == event


@pytest.mark.parametrize("saved", [b'{"event":"Nothing"}', b'{"event":"RunHead","hue":1}', b"7", b'{"event":[]}'])
def test_what_is_no_event_is_refused(saved: bytes) -> None:
    with pytest.raises(ValidationError):
        _event.validate_json(saved, strict=True)


def test_a_run_that_failed_for_an_unknown_reason_is_refused() -> None:
    saved = json.loads(encode_beam(beam()) or b"")
    saved["run_sequence"]["run"]["failures"] = {"moonlight": "too bright"}
    with pytest.raises(ValidationError):
        decode_beam(json.dumps(saved).encode())


def test_bytes_of_an_unfinished_line_need_not_be_text() -> None:
    parser = TpsLogParser()
    parser.feed(b"\xff\x00\xc3")
    whole = beam()
    whole.checkpoint = Checkpoint.of(Tailer("/a.log"), parser)
    again = decode_beam(encode_beam(whole) or b"").checkpoint
    assert again is not None
    assert again.parser.unfinished == b"\xff\xc3"


def test_a_checkpoint_does_not_change_with_the_parser() -> None:
    parser = TpsLogParser()
    checkpoint = Checkpoint.of(Tailer("/a.log"), parser)
    parser.feed(b"half a line")
    _, resumed = checkpoint.reopen(None)  # type: ignore[arg-type]
    resumed.feed(b"another")
    assert checkpoint.parser == ParserState()
