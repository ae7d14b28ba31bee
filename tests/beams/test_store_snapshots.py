"""Snapshots of the store: views that are kept while a beam stands still are what they would be if made anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.beams.estimate import Forecast
from exporter.beams.rules import StallRules, StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.saved import encode_beam
from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, SourceView
from exporter.beams.state_rules import Condition, Evidence, judge
from exporter.beams.store import BeamStore
from exporter.logs.events import (
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    DialectRecognised,
    Event,
    HistoriesCounted,
    LogRead,
    LogReplaced,
    PhaseEntered,
    RunFailed,
    RunHead,
    RunSucceeded,
)
from exporter.sources.source import LogStat

NOW = 1_760_000_000.0
KEYS = [BeamKey("c", "a"), BeamKey("c", "b")]
PATH = "/logs/{}.log"

Step = Callable[[BeamStore, float], object]

EVENTS: st.SearchStrategy[list[Event]] = st.sampled_from(
    [
        [RunHead("smc"), DialectRecognised("smc")],
        [RunHead("moqui"), DialectRecognised("moqui")],
        [PhaseEntered("loading")],
        [HistoriesCounted(25), BatchesAnnounced(3, 10)],
        [BatchStarted(1, 3)],
        [BatchFinished()],
        [BatchStarted(2, 3)],
        [BatchFinished(), BatchStarted(3, 3)],
        [BatchFinished()],
        [RunSucceeded("done")],
        [RunFailed("cuda", "no")],
        [LogReplaced(), RunHead("smc")],
        [],
    ]
)
STATUSES = st.sampled_from([None, "pending", "simulation_running", "postprocessing", "completed", "failed"])
RULES = StoreRules(stall=StallRules(2.0, 30.0, 100.0, 400.0, 600.0), retention_seconds=1e9)


@st.composite
def _steps(draw: st.DrawFn) -> Step:
    key = draw(st.sampled_from(KEYS))
    path = PATH.format(key.beam_id)
    kind = draw(
        st.sampled_from(["row", "row again", "read", "read", "read", "claim", "source", "rules", "advance", "wait"])
    )
    if kind in ("row", "row again"):
        status, progress = draw(STATUSES), draw(st.sampled_from([None, 0.0, 50.0]))
        age = draw(st.sampled_from([0.0, 1.0, 50.0]))

        def take_row(store: BeamStore, at: float) -> None:
            if kind == "row":
                row = BeamRow(key, at, status=status, progress=progress, updated_at=at - age)
            else:
                row = replace(_row(store, key, at), read_at=at)
            store.update_rows([row], (), at)

        return take_row
    if kind == "read":
        events: list[Event] = draw(EVENTS)
        size, live = draw(st.integers(1, 5000)), draw(st.booleans())

        def read(store: BeamStore, at: float) -> None:
            store.claim(key, "local", path, LogStat(size, at), at)
            store.apply(key, path, [*events, LogRead(size, True, live)], at, more=False, recent=b"%d" % size)

        return read
    if kind == "claim":
        return lambda store, at: store.claim(key, "far", "/far.log", LogStat(9, at + 20), at)
    if kind == "source":
        view = SourceView("local", "local", up=draw(st.booleans()))
        return lambda store, at: store.update_source(replace(view, last_poll_at=at), at)
    if kind == "rules":
        factor = draw(st.sampled_from([1.0, 2.0]))
        return lambda store, at: store.set_rules(replace(RULES, stall=replace(RULES.stall, factor=factor)))
    return (lambda store, at: store.advance(at)) if kind == "advance" else (lambda store, at: None)


STEPS = st.lists(
    st.tuples(_steps(), st.sampled_from([0.0, 0.5, 2.0, 2.001, 30.0, 61.0, 400.0, 700.0, -5.0])), max_size=25
)


def _row(store: BeamStore, key: BeamKey, at: float) -> BeamRow:
    """The row as the store knows it."""
    return next(view.row for view in store.snapshot(at).beams if view.key == key)


def _store() -> BeamStore:
    store = BeamStore(RULES, NOW)
    store.update_rows([BeamRow(key, NOW, status="simulation_running", updated_at=NOW) for key in KEYS], (), NOW)
    return store


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_a_cached_view_equals_one_that_is_made_anew(steps: list[tuple[Step, float]]) -> None:
    store, forgetful = _store(), _store()
    at = NOW
    for step, seconds in steps:
        at += seconds
        for each in (store, forgetful):
            step(each, at)
        for beam in forgetful._data.beams.values():
            beam.invalidate()
        assert store.snapshot(at) == forgetful.snapshot(at)
        assert [(each.kind, each.before) for each in store.pop_events()] == [
            (each.kind, each.before) for each in forgetful.pop_events()
        ]


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_snapshots_of_one_instant_are_equal_and_change_nothing(steps: list[tuple[Step, float]]) -> None:
    store, at = _store(), NOW
    for step, seconds in steps:
        at += seconds
        step(store, at)
        known = _everything(store)
        first = store.snapshot(at)
        for later in (100.0, 1000.0):
            store.snapshot(at + later)
            assert store.snapshot(at) == first
        assert _everything(store) == known


def _everything(store: BeamStore) -> tuple[object, ...]:
    """All that the store knows, but for cached views."""
    data = store._data
    beams = [encode_beam(beam) for beam in data.beams.values()]
    counted = data.counters.to_saved(), data.sources.to_state(), data.watch_version, set(data.outputs_open)
    return beams, list(data.events), *counted


def _running(store: BeamStore, key: BeamKey) -> None:
    path = PATH.format(key.beam_id)
    store.claim(key, "local", path, LogStat(100, NOW), NOW)
    head: list[Event] = [RunHead("smc"), DialectRecognised("smc"), BatchesAnnounced(10, 100)]
    store.apply(key, path, [*head, LogRead(50, True, True)], NOW, more=False)
    for batch in (1, 2):
        store.apply(key, path, [BatchStarted(batch, 10), LogRead(60, True, True)], NOW + 10 * batch, more=False)
        store.apply(key, path, [BatchFinished(), LogRead(70 + batch, True, True)], NOW + 10 * batch + 9, more=False)


def test_a_beam_that_does_not_change_is_shown_by_the_same_view() -> None:
    store = _store()

    assert store.snapshot(NOW).beams[1] is store.snapshot(NOW + 1).beams[1]


def test_only_the_estimates_change_while_nothing_happens() -> None:
    store = _store()
    _running(store, KEYS[0])
    earlier, later = (store.snapshot(at).beams[0] for at in (NOW + 31, NOW + 35))

    assert later.estimated_ratio > earlier.estimated_ratio
    assert later == earlier._replace(estimated_ratio=later.estimated_ratio, remaining_seconds=later.remaining_seconds)


def test_estimates_are_rounded() -> None:
    store = _store()
    _running(store, KEYS[0])
    beam = store.snapshot(NOW + 31.7654321).beams[0]

    assert beam.estimated_ratio == round(beam.estimated_ratio, 6) > 0.2
    assert beam.remaining_seconds == round(beam.remaining_seconds or 0.0, 3) > 60.0


def test_a_row_that_was_read_again_is_shown_with_the_new_time() -> None:
    store = _store()
    store.snapshot(NOW)
    store.update_rows([replace(store.snapshot(NOW).beams[0].row, read_at=NOW + 2)], (), NOW + 2)

    assert store.snapshot(NOW + 2).beams[0].row.read_at == NOW + 2


def test_a_stall_is_shown_although_nothing_has_happened() -> None:
    store = _store()
    _running(store, KEYS[0])
    states = [store.snapshot(NOW + after).beams[0].state for after in (31, 66, 68, 700)]

    assert states == [BeamState.RUNNING, BeamState.RUNNING, BeamState.STALLED, BeamState.EXPIRED]


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_snapshot_changes_nothing_and_two_at_one_instant_are_equal(steps: list[tuple[Step, float]]) -> None:
    read, unread, at = _store(), _store(), NOW
    for step, seconds in steps:
        at += seconds
        for each in (read, unread):
            step(each, at)
            each.pop_events()
        assert read.snapshot(at + 500) == read.snapshot(at + 500)
        assert read.snapshot(at) == read.snapshot(at)
        assert read.pop_events() == []
    for each in (read, unread):
        each.advance(at)
    assert read.snapshot(at) == unread.snapshot(at)
    assert len(read.pop_events()) == len(unread.pop_events())


def test_a_snapshot_shows_a_stall_before_time_has_advanced_and_the_event_comes_with_it() -> None:
    store = _store()
    _running(store, KEYS[0])
    store.advance(NOW + 31)
    store.pop_events()

    assert store.snapshot(NOW + 68).beams[0].state is BeamState.STALLED
    assert store.pop_events() == []
    store.advance(NOW + 68)
    assert [event.kind for event in store.pop_events()] == ["stalled"]


def test_a_snapshot_judges_no_beam_that_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BeamStore(RULES, NOW)
    keys = [BeamKey("c", f"b{number}") for number in range(1000)]
    store.update_rows([BeamRow(key, NOW, status="simulation_running", updated_at=NOW) for key in keys], (), NOW)
    for key in keys:
        _running(store, key)
    shown = store.snapshot(NOW + 31).beams
    forecasts: list[BeamRun] = []
    forecast = Forecast.of

    def foretold(run: BeamRun, prior_rate: float | None) -> Forecast:
        forecasts.append(run)
        return forecast(run, prior_rate)

    monkeypatch.setattr(Forecast, "of", foretold)
    for key in keys[:10]:
        store.apply(key, PATH.format(key.beam_id), [LogRead(80, True, True)], NOW + 32, more=False)
    shown_later = store.snapshot(NOW + 33).beams

    assert len(forecasts) == 10
    assert len(shown_later) == len(shown)


def test_advancing_judges_no_beam_that_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store()
    _running(store, KEYS[0])
    store.advance(NOW + 31)
    evaluated: list[float] = []

    def counted(evidence: Evidence, at: float) -> Condition:
        evaluated.append(at)
        return judge(evidence, at)

    monkeypatch.setattr("exporter.beams.views.judge", counted)
    for after in range(32, 60):
        store.advance(NOW + after)
    assert evaluated == []
    store.advance(NOW + 68)
    assert evaluated == [NOW + 68], "its stall"


@pytest.mark.parametrize(
    "work",
    [
        lambda store, rows: store.snapshot(NOW),
        lambda store, rows: store.advance(NOW),
        lambda store, rows: store.update_rows(rows, (), NOW),
    ],
    ids=["snapshot", "advance", "rows"],
)
def test_the_lock_is_released_between_groups_of_beams(
    work: Callable[[BeamStore, list[BeamRow]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BeamStore(RULES, NOW)
    rows = [BeamRow(BeamKey("c", f"b{number}"), NOW) for number in range(1000)]
    store.update_rows(rows, (), NOW)
    free: list[bool] = []
    monkeypatch.setattr(time, "sleep", lambda _: free.append(not store._lock.locked()))

    work(store, rows)

    assert len(store.snapshot(NOW).beams) == 1000
    assert len(free) >= 2 * 1000 // 250
    assert all(free)
