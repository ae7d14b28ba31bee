"""Whoever adds an attribute to what is kept over a restart must say whether it is saved: none is lost by oversight."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from exporter.beams.beam import Beam, SavedBeam
from exporter.beams.counters import Counters
from exporter.beams.roster import Roster
from exporter.beams.rules import StoreRules
from exporter.beams.run import BeamRun, RunState
from exporter.beams.runs import RunSequence, RunSequenceState
from exporter.beams.saved import SavedStore
from exporter.beams.snapshot import BeamRow
from exporter.beams.sources import Sources
from exporter.beams.store import BeamStore
from exporter.logs.batch_counter import BatchCounter, BatchCounterState
from exporter.logs.events import (
    Anomaly,
    BatchesAnnounced,
    BatchStarted,
    EventState,
    LogRead,
    LogReplaced,
    event_from_state,
    event_to_state,
)
from exporter.logs.parser import ParserState, TpsLogParser
from exporter.process.plain_state import attributes, pairs
from exporter.sources.checkpoint import Checkpoint, CheckpointState
from exporter.sources.tailer import Tailer, TailerState
from tests.support.world import BEAM

KEPT: list[tuple[Any, type]] = [
    (BatchCounter(), BatchCounterState),
    (BeamRun(), RunState),
    (RunSequence(), RunSequenceState),
    (Beam(BeamRow(BEAM, 0.0), 0.0), SavedBeam),
    (BeamStore(StoreRules(), 0.0), SavedStore),
    (Roster(StoreRules(), 0.0), SavedStore),
    (Sources(), SavedStore),
    (Counters(0.0), SavedStore),
    (TpsLogParser(), ParserState),
    (Tailer("/a.log"), TailerState),
    (Checkpoint.of(Tailer("/a.log"), TpsLogParser()), CheckpointState),
]


@pytest.mark.parametrize(("thing", "state"), KEPT, ids=lambda each: getattr(each, "__name__", type(each).__name__))
def test_every_attribute_is_saved_or_said_not_to_be(thing: Any, state: type) -> None:
    assert is_dataclass(state)
    saved = {attribute for _, attribute in pairs(thing, state)}
    held = attributes(thing)
    assert held - saved - thing.NOT_SAVED == set(), "neither saved nor named in NOT_SAVED"
    assert thing.NOT_SAVED - held == set(), "named in NOT_SAVED, but not there"
    assert thing.NOT_SAVED & saved == set(), "both"


def test_the_digest_of_a_tailer_stands_for_its_last_bytes() -> None:
    assert {each.name for each in fields(TailerState)} == {"path", "offset", "before_bytes", "before_sha256"}


@pytest.mark.parametrize(
    "event",
    [
        LogReplaced(),
        BatchStarted(3, None),
        BatchesAnnounced(18, 1000),
        Anomaly("line_too_long"),
        LogRead(7, line_complete=False, live=True),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_is_itself_again(event: Any) -> None:
    assert event_from_state(event_to_state(event)) == event


@pytest.mark.parametrize("state", [EventState("Nothing", {}), EventState("RunHead", {"colour": "red"})])
def test_what_is_no_event_is_refused(state: EventState) -> None:
    with pytest.raises(ValueError, match="no event"):
        event_from_state(state)


def test_a_run_that_failed_for_an_unknown_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown reasons"):
        BeamRun.from_state(replace(BeamRun().to_state(), failures={"moonlight": "too bright"}))


def test_a_state_does_not_change_with_what_it_was_taken_of() -> None:
    run = BeamRun()
    run.apply(BatchesAnnounced(3), 1.0)
    state = run.to_state()
    run.apply(BatchStarted(1, 3), 2.0)
    run.apply(Anomaly("odd"), 2.0)
    run.pace.add(1.0, 1.0)
    assert state == BeamRun.from_state(state).to_state()
    assert (state.anomalies, state.pace.count, state.batches.started) == ({}, 0, 0)
