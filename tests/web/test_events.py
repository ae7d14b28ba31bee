"""``/api/v1/events``: what subscribers receive, and that none of them harms others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest

from exporter.beams.snapshot import StoreSnapshot
from tests.support.process import wait_for
from tests.web.site import STOP_SECONDS, Site, is_accepted, serve, stop_seconds
from tests.web.store_snapshots import NOW, make_beam, make_snapshot, make_waiting_beam

QUICK = {"snapshot_seconds": 0.01, "beat_seconds": 0.05}
Event = tuple[str, Any]


class FakeStore:
    """A store that shows what the test puts there."""

    def __init__(self) -> None:
        self.shown = make_snapshot(make_beam(), make_waiting_beam())
        self.snapshots = 0

    def snapshot(self) -> StoreSnapshot:
        self.snapshots += 1
        return self.shown


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def site(store: FakeStore) -> Iterator[Site]:
    with serve(snapshot=store.snapshot, event_options=QUICK) as running:
        yield running


@contextmanager
def listen(site: Site) -> Iterator[Iterator[Event]]:
    """The events that one subscriber receives."""
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


def next_change(received: Iterator[Event]) -> Any:
    """The next event other than a beat."""
    return next(content for name, content in received if name != "beat")


def test_a_subscriber_gets_the_full_state_then_changes_and_beats_between(site: Site, store: FakeStore) -> None:
    with listen(site) as received:
        name, state = next(received)
        assert name == "state"
        assert [beam["beam_id"] for beam in state["beams"]] == ["70010001_b1", "70010001_b2"]
        assert {"summary", "ended", "sources", "database", "beams_dropped", "at"} < state.keys()
        assert next(received) == ("beat", {})
        store.shown = make_snapshot(make_beam(batch_current=6), make_waiting_beam(), at=NOW + 1)
        assert next_change(received) == {
            "at": NOW + 1,
            "beams": [{"case_id": "70010001", "beam_id": "70010001_b1", "batch_current": 6}],
        }


def test_every_subscriber_gets_changes_and_a_late_one_the_full_state(site: Site, store: FakeStore) -> None:
    with listen(site) as first:
        next(first)
        store.shown = make_snapshot(make_beam(batch_current=6))
        assert next_change(first)["beams"][0]["batch_current"] == 6
        with listen(site) as second:
            name, state = next(second)
            assert (name, [beam["batch_current"] for beam in state["beams"]]) == ("state", [6])


def test_no_snapshots_are_made_without_subscribers(site: Site, store: FakeStore) -> None:
    assert store.snapshots == 0
    with listen(site) as received:
        next(received)
    # The server notices at its next write; then the snapshots must end.
    last = [(store.snapshots, time.monotonic())]

    def ended() -> bool:
        if store.snapshots != last[-1][0]:
            last.append((store.snapshots, time.monotonic()))
        return time.monotonic() - last[-1][1] > 30 * QUICK["snapshot_seconds"]

    wait_for(ended, "the end of the snapshots")


def test_hostile_text_stays_inside_its_event(site: Site, store: FakeStore) -> None:
    store.shown = make_snapshot(make_beam("a\n\nevent: state\ndata: {}", failure_text="x\r\ny\N{LINE SEPARATOR}"))
    with listen(site) as received:
        _, state = next(received)
        assert state["beams"][0]["case_id"] == "a\n\nevent: state\ndata: {}"
        assert state["beams"][0]["failure_text"] == "x\r\ny\N{LINE SEPARATOR}"


def test_subscribers_beyond_the_limit_get_503_and_the_advice_to_poll(store: FakeStore) -> None:
    with (
        serve(snapshot=store.snapshot, event_options={**QUICK, "subscribers_at_most": 2}) as site,
        ExitStack() as stack,
    ):
        listening = [stack.enter_context(listen(site)) for _ in range(2)]
        assert [next(received)[0] for received in listening] == ["state", "state"]
        refused = site.get("/api/v1/events")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "30"
        assert "poll" in refused.json()["error"]
        assert site.get("/metrics").status_code == 200
        stack.close()
        wait_for(lambda: site.client.head("/api/v1/events").status_code == 200, "a free place")


def test_a_head_request_gets_the_headers_and_ends(site: Site) -> None:
    answer = site.client.head("/api/v1/events")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")


def test_scrapes_are_answered_while_pages_are_subscribed(site: Site) -> None:
    with listen(site) as received:
        next(received)
        assert [site.get("/metrics").status_code for _ in range(5)] == [200] * 5


def test_stopping_the_server_ends_all_streams_at_once(site: Site) -> None:
    with listen(site) as received:
        next(received)
        assert stop_seconds(site.server) < STOP_SECONDS
        assert all(name in ("beat", "change") for name, _ in received), "it ends"


def test_stopping_the_server_ends_a_subscriber_that_does_not_read_within_two_seconds() -> None:
    flood = iter(range(10**9))

    def snapshot() -> StoreSnapshot:
        return make_snapshot(make_beam(failure_text=f"{next(flood)}" + "x" * 1_000_000))

    with serve(snapshot=snapshot, event_options=QUICK) as site, closing(site.connect()) as deaf:
        deaf.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: next(flood) > 30, "more than a connection holds")
        assert stop_seconds(site.server) < STOP_SECONDS


def test_a_subscriber_that_does_not_read_is_disconnected_and_others_get_changes(store: FakeStore) -> None:
    flood = iter(range(10**9))

    def snapshot() -> StoreSnapshot:
        return make_snapshot(make_beam(log_size_bytes=next(flood), failure_text=f"{next(flood)}" + "x" * 300_000))

    with serve(snapshot=snapshot, event_options=QUICK, idle_seconds=1) as site, closing(site.connect()) as deaf:
        deaf.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        with listen(site) as received:
            sizes = [content["beams"][0]["log_size_bytes"] for _, content in (next(received) for _ in range(60))]
            assert sizes == sorted(sizes)

        wait_for(lambda: not is_accepted(deaf.getsockname()), "the end of the subscriber that does not read")


def test_a_failing_snapshot_ends_the_streams_so_that_pages_notice() -> None:
    fail = threading.Event()

    def snapshot() -> StoreSnapshot:
        if fail.is_set():
            raise RuntimeError("no store")
        return make_snapshot(make_beam())

    with serve(snapshot=snapshot, event_options=QUICK) as site:
        with listen(site) as received:
            next(received)
            fail.set()
            assert all(name == "beat" for name, _ in received), "it ends"
        assert site.errors == ["events"]
        fail.clear()
        with listen(site) as received:
            assert next(received)[0] == "state"
