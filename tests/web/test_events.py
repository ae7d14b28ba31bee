"""The store as it changes: what listeners are told, and that nobody who listens harms anybody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from exporter.beams.snapshot import BeamState, StoreSnapshot
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.web.events import ChangeTracker
from exporter.web.fields import RenderContext
from tests.support.process import wait_for
from tests.web.store_snapshots import NOW, make_beam, make_full_snapshot, make_snapshot, make_waiting_beam
from tests.web.test_server import STOP_SECONDS, Site, _is_accepted, serve, stop_seconds

QUICK = {"look_seconds": 0.01, "beat_seconds": 0.05}
Event = tuple[str, Any]


class BeamStore:
    """A store that shows what the test puts there."""

    def __init__(self) -> None:
        self.shown = make_snapshot(make_beam(), make_waiting_beam())
        self.looks = 0

    def snapshot(self) -> StoreSnapshot:
        self.looks += 1
        return self.shown


@pytest.fixture
def store() -> BeamStore:
    return BeamStore()


@pytest.fixture
def site(store: BeamStore) -> Iterator[Site]:
    with serve(snapshot=store.snapshot, event_options=QUICK) as running:
        yield running


@contextmanager
def listen(site: Site) -> Iterator[Iterator[Event]]:
    """The events of one listener, as they come."""
    with site.client.stream("GET", "/api/v1/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


def events(answer: httpx.Response) -> Iterator[Event]:
    unfinished = b""
    for piece in answer.iter_raw():
        *complete, unfinished = (unfinished + piece).split(b"\n\n")
        for event in complete:
            name, data = event.split(b"\n")
            yield name.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))


def next_change(told: Iterator[Event]) -> Any:
    """The next event that is no beat."""
    return next(content for name, content in told if name != "beat")


def take(told: ChangeTracker, snapshot: StoreSnapshot) -> Any:
    return told.take(snapshot, RenderContext.of(PlainIdentifiers(), snapshot))


# What there is to tell


def test_the_first_look_tells_everything_and_the_same_again_nothing() -> None:
    told, snapshot = ChangeTracker(), make_full_snapshot()
    first = take(told, snapshot)
    assert len(first["beams"]) == 8
    assert take(told, snapshot) is None
    assert told.state(NOW) == {"at": NOW, **first}


def test_only_the_fields_that_are_other_are_told() -> None:
    told = ChangeTracker()
    take(told, make_snapshot(make_beam(), make_waiting_beam()))
    change = take(told, make_snapshot(make_beam(batch_current=6, log_size_bytes=5000), make_waiting_beam()))
    assert change == {
        "beams": [
            {"case_id": "70010001", "beam_id": "70010001_b1", "batch_current": 6, "log_size_bytes": 5000},
        ]
    }


def test_a_beam_that_left_is_told_by_its_ids() -> None:
    told = ChangeTracker()
    take(told, make_snapshot(make_beam(), make_waiting_beam()))
    change = take(told, make_snapshot(make_beam()))
    assert change["gone"] == [["70010001", "70010001_b2"]]
    assert change["summary"]["waiting"] == 0
    assert "beams" not in change


def test_estimates_are_told_when_they_have_moved_enough_and_never_drift() -> None:
    told = ChangeTracker()
    take(told, make_snapshot(make_beam(estimated_ratio=0.25)))
    changes = 0
    for step in range(1, 40):
        ratio = 0.25 + step * 0.0003
        changes += take(told, make_snapshot(make_beam(estimated_ratio=ratio))) is not None
        assert abs(told.state(NOW)["beams"][0]["estimated_ratio"] - ratio) < 0.0011
    assert 0 < changes < 20


def test_the_end_of_a_run_is_told_exactly() -> None:
    told = ChangeTracker()
    take(told, make_snapshot(make_beam(estimated_ratio=0.9995)))
    change = take(told, make_snapshot(make_beam(estimated_ratio=1.0, state=BeamState.SUCCEEDED)))
    assert change["beams"][0]["estimated_ratio"] == 1.0


def test_time_left_moves_by_time_alone_and_is_not_told() -> None:
    told = ChangeTracker()
    take(told, make_snapshot(make_beam(remaining_seconds=900.0)))
    later = make_snapshot(make_beam(remaining_seconds=898.0), at=NOW + 2)
    assert take(told, later) is None
    assert told.state(NOW + 2)["beams"][0]["remaining_seconds"] == 898.0, "whoever comes later is told how it is now"


def test_looks_at_a_source_are_no_news_but_its_loss_is() -> None:
    told = ChangeTracker()
    snapshot = make_full_snapshot()
    take(told, snapshot)
    polled = tuple(replace(source, round_trips=source.round_trips + 9) for source in snapshot.sources)
    assert take(told, replace(snapshot, sources=polled)) is None
    lost = tuple(replace(source, up=False) for source in snapshot.sources)
    change = take(told, replace(snapshot, sources=lost))
    assert list(change) == ["beams", "sources"]
    assert all("waiting_text" in beam for beam in change["beams"]), "beams that wait are explained by their sources"


# Over the connection


def test_a_listener_is_told_everything_then_what_changes_and_beats_between(site: Site, store: BeamStore) -> None:
    with listen(site) as told:
        name, state = next(told)
        assert name == "state"
        assert [beam["beam_id"] for beam in state["beams"]] == ["70010001_b1", "70010001_b2"]
        assert {"summary", "ended", "sources", "database", "beams_dropped", "at"} < state.keys()
        assert next(told) == ("beat", {})
        store.shown = make_snapshot(make_beam(batch_current=6), make_waiting_beam(), at=NOW + 1)
        assert next_change(told) == {
            "at": NOW + 1,
            "beams": [{"case_id": "70010001", "beam_id": "70010001_b1", "batch_current": 6}],
        }


def test_every_listener_is_told_and_a_late_one_everything(site: Site, store: BeamStore) -> None:
    with listen(site) as first:
        next(first)
        store.shown = make_snapshot(make_beam(batch_current=6))
        assert next_change(first)["beams"][0]["batch_current"] == 6
        with listen(site) as second:
            name, state = next(second)
            assert (name, [beam["batch_current"] for beam in state["beams"]]) == ("state", [6])


def test_nobody_looks_when_nobody_listens(site: Site, store: BeamStore) -> None:
    assert store.looks == 0
    with listen(site) as told:
        next(told)
    # The server learns of it when it next writes; then the looks must end.
    last = [(store.looks, time.monotonic())]

    def ended() -> bool:
        if store.looks != last[-1][0]:
            last.append((store.looks, time.monotonic()))
        return time.monotonic() - last[-1][1] > 30 * QUICK["look_seconds"]

    wait_for(ended, "the end of the looks")


def test_hostile_text_stays_inside_its_event(site: Site, store: BeamStore) -> None:
    store.shown = make_snapshot(make_beam("a\n\nevent: state\ndata: {}", failure_text="x\r\ny\N{LINE SEPARATOR}"))
    with listen(site) as told:
        _, state = next(told)
        assert state["beams"][0]["case_id"] == "a\n\nevent: state\ndata: {}"
        assert state["beams"][0]["failure_text"] == "x\r\ny\N{LINE SEPARATOR}"


def test_listeners_beyond_the_bound_are_told_to_poll(store: BeamStore) -> None:
    with serve(snapshot=store.snapshot, event_options={**QUICK, "listeners_at_most": 2}) as site, ExitStack() as stack:
        listening = [stack.enter_context(listen(site)) for _ in range(2)]
        assert [next(told)[0] for told in listening] == ["state", "state"]
        refused = site.get("/api/v1/events")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "30"
        assert "poll" in refused.json()["error"]
        assert site.get("/metrics").status_code == 200
        stack.close()
        wait_for(lambda: site.client.head("/api/v1/events").status_code == 200, "a free place")


def test_head_tells_what_would_come_and_ends(site: Site) -> None:
    answer = site.client.head("/api/v1/events")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")


def test_scrapes_are_answered_while_pages_listen(site: Site) -> None:
    with listen(site) as told:
        next(told)
        assert [site.get("/metrics").status_code for _ in range(5)] == [200] * 5


def test_stop_ends_listeners_at_once_and_says_so_to_them(site: Site) -> None:
    with listen(site) as told:
        next(told)
        assert stop_seconds(site.server) < STOP_SECONDS
        assert all(name in ("beat", "change") for name, _ in told), "it ends"


def test_stop_ends_a_listener_that_does_not_read_within_two_seconds() -> None:
    flood = iter(range(10**9))

    def snapshot() -> StoreSnapshot:
        return make_snapshot(make_beam(failure_text=f"{next(flood)}" + "x" * 1_000_000))

    with serve(snapshot=snapshot, event_options=QUICK) as site, closing(site.connect()) as deaf:
        deaf.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: next(flood) > 30, "more than a connection holds")
        assert stop_seconds(site.server) < STOP_SECONDS


def test_a_listener_that_does_not_read_is_cut_and_others_are_told(store: BeamStore) -> None:
    flood = iter(range(10**9))

    def snapshot() -> StoreSnapshot:
        return make_snapshot(make_beam(log_size_bytes=next(flood), failure_text=f"{next(flood)}" + "x" * 300_000))

    with serve(snapshot=snapshot, event_options=QUICK, idle_seconds=1) as site, closing(site.connect()) as deaf:
        deaf.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        with listen(site) as told:
            sizes = [content["beams"][0]["log_size_bytes"] for _, content in (next(told) for _ in range(60))]
            assert sizes == sorted(sizes)

        wait_for(lambda: not _is_accepted(deaf.getsockname()), "the end of the silent listener")


def test_a_board_that_fails_ends_the_streams_so_that_pages_notice() -> None:
    fail = threading.Event()

    def snapshot() -> StoreSnapshot:
        if fail.is_set():
            raise RuntimeError("no store")
        return make_snapshot(make_beam())

    with serve(snapshot=snapshot, event_options=QUICK) as site:
        with listen(site) as told:
            next(told)
            fail.set()
            assert all(name == "beat" for name, _ in told), "it ends"
        assert site.errors == ["events"]
        fail.clear()
        with listen(site) as told:
            assert next(told)[0] == "state"
