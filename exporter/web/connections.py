"""Accepts connections, bounds their number, and begins TLS.

A client that only holds a connection (silent, slow, or in a TLS handshake that never ends) must not keep others out. At
the limit, the idle connection that has waited longest is closed; those that never had an answer go first. So a scraper
that keeps its connection loses it last, and opens another. A connection whose request is being answered stays, so each
address gets only a part of all connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog

from exporter.process import gc_tuning
from exporter.web.http_connection import HttpConnection

_LOG = structlog.get_logger(__name__)

CONNECTIONS_AT_MOST = 256
CONNECTIONS_OF_ONE_ADDRESS = 96
"""Everybody behind a reverse proxy has one address: 32 open pages, scrapers, and some to spare."""
HANDSHAKE_SECONDS = 10.0
_HINT_SECONDS = 2.0
_HINT_READ_BYTES = 16 * 1024
_HINT_TEXT = b"This port speaks HTTPS: use https:// instead of http://\n"
_HINT = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(_HINT_TEXT)
) + _HINT_TEXT
_LOG_AGAIN_SECONDS = 60.0
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 0.2
_REFUSED_CERTIFICATE = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED")
_CONNECTION_BYTES = 256 * 1024
"""Estimate of what a connection leaves to the garbage collector: buffers of TLS, a request head and asyncio."""


def address_key(host: str) -> str:
    """Return the address by which clients are limited: IPv4, or the /64 network of IPv6 that one site has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class _Client:
    """A client's connection, from its acceptance to its end.

    Attributes:
        handshake: the task that begins TLS and makes the connection; ``None`` once it is made.
        connection: ``None`` until TLS begins.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.handshake: asyncio.Task[None] | None = None
        self.connection: HttpConnection | None = None
        self._accepted_at = time.monotonic()

    @property
    def busy(self) -> bool:
        return self.connection is not None and self.connection.busy

    @property
    def eviction_order(self) -> tuple[bool, float]:
        """The client with the lowest value is closed first."""
        if self.connection is None:
            return False, self._accepted_at
        return self.connection.answered, self.connection.waiting_since

    def close(self) -> None:
        if self.handshake is not None:
            self.handshake.cancel()
        if self.connection is not None:
            self.connection.abort()


class Acceptor:
    """Accepts connections on a listening socket. Lives in one event loop.

    Args:
        make_connection: makes a connection's protocol, which must call the given callback when it has ended.
        tls_context: TLS for a connection that begins now; ``None`` for plain HTTP.
        count_refused_certificate: called when a client has no certificate, or one that is not accepted.
    """

    def __init__(
        self,
        make_connection: Callable[[Callable[[], None]], HttpConnection],
        tls_context: Callable[[], ssl.SSLContext | None],
        count_refused_certificate: Callable[[], None],
    ) -> None:
        self._make_connection = make_connection
        self._tls_context = tls_context
        self._count_refused_certificate = count_refused_certificate
        self._loop = asyncio.get_running_loop()
        self._clients: set[_Client] = set()
        self._by_address: defaultdict[str, set[_Client]] = defaultdict(set)
        self._listener: socket.socket | None = None
        self._no_clients = asyncio.Event()
        self._logged_at = -_LOG_AGAIN_SECONDS

    def start(self, listener: socket.socket) -> None:
        """Accept connections from now on."""
        listener.setblocking(False)
        self._listener = listener
        self._listen()

    def stop(self) -> None:
        """Accept no more connections. Existing ones stay."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener = None

    def shut_down_connections(self) -> None:
        """Close all connections: each after its response, and those in a TLS handshake at once."""
        for client in list(self._clients):
            if client.connection is None or client.connection.transport is None:
                client.close()
            else:
                client.connection.shut_down()

    async def abort_after(self, seconds: float) -> None:
        """Wait until all connections have ended, at most so long, then abort the others."""
        self._no_clients.clear()
        if self._clients:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._no_clients.wait(), seconds)
        for client in list(self._clients):
            client.close()

    def _listen(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        """Accept one connection; the event loop calls again while there are more, and serves others in between."""
        try:
            connection, peer = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._warn("cannot accept a connection", error=error.strerror)
                self._make_room(self._clients)
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE_SECONDS, self._listen)
            return  # otherwise the client has gone already
        connection.setblocking(False)
        gc_tuning.report_garbage(_CONNECTION_BYTES)
        client = _Client(address_key(peer[0]))
        if not self._has_room_for(client.address):
            self._warn("too many connections under way, one more is refused", address=client.address)
            connection.close()
            return
        self._clients.add(client)
        self._by_address[client.address].add(client)
        client.handshake = self._loop.create_task(self._begin(client, connection))
        timer = self._loop.call_later(HANDSHAKE_SECONDS, client.handshake.cancel)
        client.handshake.add_done_callback(functools.partial(self._begun, client, connection, timer))

    async def _begin(self, client: _Client, connection: socket.socket) -> None:
        """Begin TLS where it is configured, and give the connection to its protocol."""
        context = self._tls_context()
        if context is not None and not await _speaks_tls(connection):
            return

        def protocol() -> asyncio.Protocol:
            client.connection = self._make_connection(functools.partial(self._remove, client))
            return client.connection

        await self._loop.connect_accepted_socket(protocol, connection, ssl=context)

    def _begun(
        self, client: _Client, connection: socket.socket, timer: asyncio.TimerHandle, handshake: asyncio.Task[None]
    ) -> None:
        timer.cancel()
        client.handshake = None
        if client.connection is None:
            connection.close()  # else its transport closes it
        if client.connection is None or client.connection.transport is None:
            self._remove(client)
        error = None if handshake.cancelled() else handshake.exception()
        if isinstance(error, ssl.SSLError) and error.reason in _REFUSED_CERTIFICATE:
            self._count_refused_certificate()
        elif error is not None and not isinstance(error, (OSError, asyncio.TimeoutError)):
            _LOG.error("cannot begin a connection", exc_info=error)

    def _remove(self, client: _Client) -> None:
        """Forget a connection that has ended or is being closed. May be called twice."""
        self._clients.discard(client)
        of_address = self._by_address.get(client.address)
        if of_address is not None:
            of_address.discard(client)
            if not of_address:
                del self._by_address[client.address]
        if not self._clients:
            self._no_clients.set()

    def _has_room_for(self, address: str) -> bool:
        of_address = self._by_address.get(address, set())
        if len(of_address) >= CONNECTIONS_OF_ONE_ADDRESS:
            return self._make_room(of_address)
        if len(self._clients) >= CONNECTIONS_AT_MOST:
            largest_first = sorted(self._by_address.values(), key=len, reverse=True)
            return any(self._make_room(clients) for clients in largest_first)
        return True

    def _make_room(self, clients: Iterable[_Client]) -> bool:
        """Close the idle client that has waited longest; ``False`` where all are busy."""
        idle = [client for client in clients if not client.busy]
        if not idle:
            return False
        longest_waiting = min(idle, key=lambda client: client.eviction_order)
        self._remove(longest_waiting)
        longest_waiting.close()
        return True

    def _warn(self, event: str, **fields: object) -> None:
        """Log a warning, but not for each of thousands of connections."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_AGAIN_SECONDS:
            self._logged_at = now
            _LOG.warning(event, **fields)


async def _speaks_tls(connection: socket.socket) -> bool:
    """Wait for a client's first byte, which stays unread, and tell plain HTTP clients to use HTTPS.

    Returns:
        Whether to begin TLS. Bytes that are neither HTTP nor TLS are left to OpenSSL to refuse.
    """
    while True:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
            break
        except BlockingIOError:
            await _readable(connection)
    if first.isalpha():
        await asyncio.wait_for(_send_https_hint(connection), _HINT_SECONDS)
        return False
    return first != b""


async def _send_https_hint(connection: socket.socket) -> None:
    """Answer a plain HTTP request and read the rest of it: closing earlier could discard the answer."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _HINT)
    connection.shutdown(socket.SHUT_WR)
    read_bytes = 0
    while read_bytes < _HINT_READ_BYTES and (data := await loop.sock_recv(connection, 4096)):
        read_bytes += len(data)


async def _readable(connection: socket.socket) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
