"""Accepting connections: their limits, and while the server stops."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from contextlib import ExitStack, closing

import httpx
from prometheus_client.core import Metric

from exporter.config.listen_address import parse_listen_address
from exporter.web.connections import CONNECTIONS_AT_MOST, CONNECTIONS_OF_ONE_ADDRESS, Acceptor
from exporter.web.http_connection import HttpConnection
from tests.support.logs import recorded_logs
from tests.web.site import (
    PATIENCE_SECONDS,
    FunctionCollector,
    Site,
    accepted_socket,
    read_to_end,
    serve,
    wait_until,
)


def test_silent_connections_are_closed_to_make_room_for_a_request(site: Site) -> None:
    assert site.get("/-/healthy").status_code == 200  # and the client keeps its connection
    with ExitStack() as connections:
        silent = [connections.enter_context(closing(site.connect())) for _ in range(CONNECTIONS_OF_ONE_ADDRESS + 20)]
        assert httpx.get(f"http://{site.server.address}/-/healthy").status_code == 200
        assert read_to_end(silent[0]) == b"", "who came first and said nothing goes first"
        assert site.get("/-/healthy").status_code == 200


def test_silent_connections_of_many_addresses_are_closed_to_make_room_for_a_request(site: Site) -> None:
    assert site.get("/-/healthy").status_code == 200
    address = parse_listen_address(site.server.address)
    with ExitStack() as connections:
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            for _ in range(CONNECTIONS_OF_ONE_ADDRESS):
                silent = socket.create_connection(address, PATIENCE_SECONDS, (host, 0))
                connections.enter_context(closing(silent))
        assert 3 * CONNECTIONS_OF_ONE_ADDRESS > CONNECTIONS_AT_MOST
        assert httpx.get(f"http://{site.server.address}/-/healthy").status_code == 200
        assert site.get("/-/healthy").status_code == 200


def test_an_address_whose_connections_are_all_busy_gets_no_more_and_others_do() -> None:
    released = threading.Event()

    def collect() -> Iterable[Metric]:
        assert released.wait(PATIENCE_SECONDS)
        return []

    with recorded_logs() as lines, serve(FunctionCollector(collect)) as site, ExitStack() as connections:
        address = parse_listen_address(site.server.address)

        def connect() -> socket.socket:
            connection = socket.create_connection(address, PATIENCE_SECONDS, ("127.0.0.2", 0))
            return connections.enter_context(closing(connection))

        busy: list[socket.socket] = []

        def one_more_is_refused() -> bool:
            connection = connect()
            connection.settimeout(0.05 if len(busy) < CONNECTIONS_OF_ONE_ADDRESS else 1.0)
            try:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return connection.recv(1) == b""
            except TimeoutError:
                busy.append(connection)
                return False
            except ConnectionError:
                return True

        wait_until(one_more_is_refused)
        assert len(busy) == CONNECTIONS_OF_ONE_ADDRESS
        assert site.get("/-/healthy").status_code == 200
        released.set()
        for connection in busy:
            connection.settimeout(PATIENCE_SECONDS)
            assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")

    assert "too many connections under way, one more is refused" in {line["event"] for line in lines}


def test_accepted_connections_send_without_delay(site: Site) -> None:
    with closing(site.connect()) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1)
        with accepted_socket(client.getsockname()) as accepted:
            assert accepted is not None
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def _never_called(*_: object) -> HttpConnection:
    raise AssertionError("no connection was to be accepted")


async def _client_that_connects_while_the_acceptor_stops(listener: socket.socket) -> socket.socket:
    acceptor = Acceptor(_never_called, lambda: None, lambda: None)
    acceptor.start(listener)
    client = socket.create_connection(listener.getsockname())
    acceptor.stop()
    await asyncio.sleep(0.05)  # the event loop would accept the client now
    return client


def test_a_client_that_connects_while_the_server_stops_is_not_lost() -> None:
    """It stays with the listener, whose closing tells the client. An accepted and dropped connection would not."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        asyncio.run(_client_that_connects_while_the_acceptor_stops(listener)) as client,
    ):
        connection, peer = listener.accept()
        connection.close()
        assert peer == client.getsockname()
