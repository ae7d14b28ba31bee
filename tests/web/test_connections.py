"""Accepting connections while the server stops."""

from __future__ import annotations

import asyncio
import socket

from exporter.web.connections import Acceptor
from exporter.web.http_connection import HttpConnection


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
