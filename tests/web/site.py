"""A running web server over real connections, for tests."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.config.listen_address import parse_listen_address
from exporter.metrics.collectors import ScrapeMeter, StoreCollector, process_registry
from exporter.metrics.encoder import MetricsEncoder
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.web.events import EventBroadcaster
from exporter.web.page import PageLinks
from exporter.web.reveal import IdReveal
from exporter.web.routes import build_app
from exporter.web.server import WebServer
from tests.support.scheduling import seconds_of
from tests.web.store_snapshots import explain_of, make_full_snapshot

PATIENCE_SECONDS = 30.0
STOP_SECONDS = 2.0


def no_problem() -> None:
    """Neither trouble nor result."""


class FunctionCollector(Collector):
    """A collector that does what the test wants."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


@dataclass
class Site:
    """A server that runs, a client of it, and what it reported."""

    server: WebServer
    client: httpx.Client
    scrapes: ScrapeMeter
    errors: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def connect(self) -> socket.socket:
        """A connection on which nothing has been said yet."""
        connection = socket.create_connection(parse_listen_address(self.server.address), timeout=PATIENCE_SECONDS)
        connection.settimeout(PATIENCE_SECONDS)
        return connection


@contextmanager
def serve(
    *collectors: Collector,
    idle_seconds: int = 75,
    listen_address: str = "127.0.0.1:0",
    event_options: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[Site]:
    """A server with a full store or, instead of it, these collectors, and what is changed about its application."""
    scrapes, errors = ScrapeMeter(), list[str]()
    registry = CollectorRegistry() if collectors else process_registry()
    for collector in collectors:
        registry.register(collector)
    store = StoreCollector(make_full_snapshot, identifiers=PlainIdentifiers())
    snapshot = changes.pop("snapshot", make_full_snapshot)
    identifiers = changes.pop("identifiers", PlainIdentifiers())
    events = EventBroadcaster(snapshot, identifiers, errors.append, **(event_options or {}))
    parts: dict[str, Any] = {
        "encoder": MetricsEncoder(*([] if collectors else [store])),
        "registry": registry,
        "meter": scrapes,
        "snapshot": snapshot,
        "explain": partial(explain_of, snapshot),
        "identifiers": identifiers,
        "events": events,
        "id_reveal": IdReveal(snapshot, identifiers),
        "links": PageLinks(),
        "healthy": no_problem,
        "ready": no_problem,
        "reload": no_problem,
        "enable_lifecycle": False,
        "count_error": errors.append,
        "version": "1.2.3",
    }
    server = WebServer(
        build_app(**{**parts, **changes}),
        listen_address,
        idle_seconds=idle_seconds,
        web_config=changes.get("web_config"),
        failed_logins=changes.get("failed_logins"),
        end_streams=events.end_streams,
    )
    server.start()
    try:
        with httpx.Client(base_url=f"http://{server.address}", timeout=PATIENCE_SECONDS) as client:
            yield Site(server, client, scrapes, errors)
    finally:
        server.stop()


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def read_to_end(connection: socket.socket) -> bytes:
    """What still arrives until the server closes; times out where it never does."""
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
    return bytes(received)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.01)


@contextmanager
def accepted_socket(client_name: object) -> Iterator[socket.socket | None]:
    """The server's end of a client's connection, which is in this same process; ``None`` where there is none."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(entry))
        except OSError:
            continue  # closed meanwhile
        try:
            candidate = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue  # not a socket
        with closing(candidate):
            try:
                found = candidate.getpeername() == client_name
            except OSError:
                continue  # a socket without a peer
            if found:
                yield candidate
                return
    yield None


def is_accepted(client_name: object) -> bool:
    with accepted_socket(client_name) as accepted:
        return accepted is not None


def stop_seconds(server: WebServer) -> float:
    """How long a server takes to stop, until its thread has ended: its own stop does not wait for that for ever."""

    def stop() -> None:
        server.stop()
        wait_until(lambda: not server.alive)

    return seconds_of(stop)
