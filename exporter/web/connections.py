"""Connections as they come: how many, from whom, and which one goes when there are too many.

A client that only holds a connection (silent, slow, in a TLS handshake that never ends) must not keep others out: where
there are too many, the one that has waited longest without a request under way goes, those that have never had an
answer first. A scraper that keeps its connection loses it last, and opens another. What is under way is never cut, so
each address may have only a part of all.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from exporter.process import gc_tuning

_LOG = structlog.get_logger(__name__)

CONNECTIONS_AT_MOST = 256
CONNECTIONS_OF_ONE_ADDRESS = 96
"""Everybody behind a reverse proxy comes from one address: pages of 32 listeners, scrapers, and some to spare."""
HANDSHAKE_SECONDS = 10.0
_LEAST_SECONDS = 0.1
_TELL_SECONDS = 2.0
_READ_BYTES_AT_MOST = 16 * 1024
_PLAIN_TEXT = b"This port speaks HTTPS: use https:// instead of http://\n"
_PLAIN_ANSWER = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(_PLAIN_TEXT)
) + _PLAIN_TEXT
_SAY_AGAIN_SECONDS = 60.0
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 0.2

_CONNECTION_BYTES = 256 * 1024
"""What a connection leaves behind for the search for garbage: the buffers of TLS, of a head, of asyncio."""


def address_key(host: str) -> str:
    """What counts as one address: an IPv4 address, or the 64 bits of an IPv6 one that a site hands to one machine."""
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


class Held(Protocol):
    """A connection's protocol, as far as it is held here."""

    @property
    def busy(self) -> bool:
        """Whether an answer is under way, and its client takes it."""
        ...

    @property
    def answered(self) -> bool:
        """Whether it has had an answer that was not a refusal."""
        ...

    def abort(self) -> None:
        """End it now."""
        ...


class Guest:
    """One connection, from its acceptance to its end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.waiting_since = time.monotonic()
        self.handshake: asyncio.Task[None] | None = None
        self.held: Held | None = None
        self.began = False

    @property
    def busy(self) -> bool:
        return self.held is not None and self.held.busy

    @property
    def worth(self) -> tuple[bool, float]:
        """Who has less of it goes first."""
        return self.held is not None and self.held.answered, self.waiting_since

    def turn_out(self) -> None:
        """End it, in whatever state it is."""
        if self.held is not None:
            self.held.abort()
        elif self.handshake is not None:
            self.handshake.cancel()


class Door:
    """Accepts connections and hands them to protocols. Lives in one event loop.

    Args:
        make_protocol: makes the protocol of a connection; it sets :attr:`Guest.held` and calls :meth:`left`.
        context: TLS of a connection that begins now, or ``None``.
        refused_certificate: told when a client's certificate is missing or not acceptable.
        at_most, of_one_address: connections at once.
    """

    def __init__(
        self,
        make_protocol: Callable[[Guest], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext | None],
        refused_certificate: Callable[[], None],
        *,
        at_most: int = CONNECTIONS_AT_MOST,
        of_one_address: int = CONNECTIONS_OF_ONE_ADDRESS,
    ) -> None:
        self._make_protocol = make_protocol
        self._context = context
        self._refused_certificate = refused_certificate
        self._at_most = at_most
        self._of_one_address = of_one_address
        self._guests: set[Guest] = set()
        self._by_address: defaultdict[str, set[Guest]] = defaultdict(set)
        self._accepting: asyncio.Task[None] | None = None
        self._said_at = -_SAY_AGAIN_SECONDS

    def open(self, listener: socket.socket) -> None:
        """Begin to accept."""
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    async def close(self) -> None:
        """Accept no more, and end what is not yet a connection. Those that are, stay."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        handshakes = [guest.handshake for guest in self._guests if guest.handshake is not None]
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)

    def left(self, guest: Guest) -> None:
        """A connection has ended. May be said twice."""
        self._guests.discard(guest)
        of_address = self._by_address.get(guest.address)
        if of_address is not None:
            of_address.discard(guest)
            if not of_address:
                del self._by_address[guest.address]

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                # Accepting does not pause by itself while there are more: those inside must have their turn.
                await asyncio.sleep(0)
                connection, peer = await _accepted(listener)
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._say("cannot accept a connection", error=error.strerror)
                    self._make_room(self._guests)
                    await asyncio.sleep(_PAUSE_SECONDS)
                continue  # else the client has gone already
            except Exception as error:  # noqa: BLE001 -- who does not accept any more would be dead and look alive
                _LOG.error("cannot accept a connection", exc_info=error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            gc_tuning.report_garbage(_CONNECTION_BYTES)  # another one has ended or will
            guest = Guest(address_key(peer[0]))
            if not self._has_room_for(guest):
                self._say("too many connections under way, one more is refused", address=guest.address)
                connection.close()
                continue
            self._guests.add(guest)
            self._by_address[guest.address].add(guest)
            guest.handshake = loop.create_task(self._welcome(guest, connection))
            guest.handshake.add_done_callback(functools.partial(_close_unbegun, guest, connection))

    async def _welcome(self, guest: Guest, connection: socket.socket) -> None:
        guest.began = True
        context = self._context()
        until = time.monotonic() + HANDSHAKE_SECONDS
        try:
            if context is not None and not await _begins_tls(connection, until):
                self.left(guest)
                return
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_protocol(guest),
                connection,
                ssl=context,
                ssl_handshake_timeout=None if context is None else max(_LEAST_SECONDS, until - time.monotonic()),
            )
        except ssl.SSLError as error:
            self.left(guest)
            if error.reason in ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"):
                self._refused_certificate()
        except OSError:  # gone, or too slow
            self.left(guest)
        except asyncio.CancelledError:  # turned out; asyncio has closed it
            self.left(guest)
            raise
        finally:
            guest.handshake = None

    def _has_room_for(self, guest: Guest) -> bool:
        of_address = self._by_address.get(guest.address, set())
        if len(of_address) >= self._of_one_address:
            return self._make_room(of_address)
        if len(self._guests) >= self._at_most:
            crowds = sorted(self._by_address.values(), key=len, reverse=True)
            return any(self._make_room(crowd) for crowd in crowds)
        return True

    def _make_room(self, guests: set[Guest]) -> bool:
        goes = min((guest for guest in guests if not guest.busy), key=lambda guest: guest.worth, default=None)
        if goes is None:
            return False
        self.left(goes)
        goes.turn_out()
        return True

    def _say(self, event: str, **fields: object) -> None:
        """Log it, but not at each of thousands of connections."""
        now = time.monotonic()
        if now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            _LOG.warning(event, **fields)


async def _begins_tls(connection: socket.socket, until: float) -> bool:
    """Whether a client begins a TLS handshake, or anything else that is for TLS to refuse.

    One that speaks plain HTTP is told so in one line. It must have said something by ``until`` (monotonic seconds).
    Where this is not true, the connection is closed.
    """
    try:
        first = await _peeked(connection, until)
        if first.isalpha():
            await asyncio.wait_for(_tell_of_https(connection), min(_TELL_SECONDS, max(0.0, until - time.monotonic())))
    except (OSError, asyncio.TimeoutError):
        first = b""
    except asyncio.CancelledError:
        connection.close()
        raise
    if first and not first.isalpha():
        return True
    connection.close()
    return False


async def _tell_of_https(connection: socket.socket) -> None:
    """Answer a plain HTTP request, and let its client read that: what it still sends is read, up to a limit."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _PLAIN_ANSWER)
    connection.shutdown(socket.SHUT_WR)
    read_bytes = 0
    while read_bytes < _READ_BYTES_AT_MOST and (data := await loop.sock_recv(connection, 4096)):
        read_bytes += len(data)


async def _peeked(connection: socket.socket, until: float) -> bytes:
    """The first byte that a client sends, which stays to be read; nothing where it has gone, or says nothing."""
    while True:
        try:
            return connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            seconds = until - time.monotonic()
            if seconds <= 0:
                return b""
            await _readable(connection, seconds)


async def _accepted(listener: socket.socket) -> tuple[socket.socket, Any]:
    """The next connection. One that is cancelled has taken none; the loop's own ``sock_accept`` may lose one then."""
    while True:
        try:
            connection, peer = listener.accept()
        except BlockingIOError:
            await _readable(listener)
        else:
            connection.setblocking(False)
            return connection, peer


async def _readable(waited_on: socket.socket, seconds: float | None = None) -> None:
    """Wait until there is something to read or to accept, or so long. One that is cancelled ends at once."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    timer = None if seconds is None else loop.call_later(seconds, _set, readable)
    loop.add_reader(waited_on, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(waited_on)
        if timer is not None:
            timer.cancel()


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _close_unbegun(guest: Guest, connection: socket.socket, _: asyncio.Task[None]) -> None:
    """A task that is cancelled before its first step leaves its connection to nobody."""
    if not guest.began:
        connection.close()
