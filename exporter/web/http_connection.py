"""One HTTP connection: bounds in front of uvicorn's protocol, which stays as it is.

uvicorn bounds only the time between two requests. A client that sends nothing, half a request, or one byte now and
then, and one that does not read its answer, could hold a connection for ever. So this protocol receives the bytes,
passes whole and checked request heads to uvicorn's, one at a time, and closes slow connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.request_heads import HEAD_BYTES_AT_MOST, RequestRefused, next_head

HEAD_SECONDS = 10.0
"""A request head must be complete this long after its first byte; a connection's first one, after the connection."""
_REFUSED_SECONDS = 1.0
"""How long a refused client has to read why and to end TLS."""
_CONNECTION = "mqi.connection"
"""Key of the connection in the ASGI scope's ``state``."""


def track_responses(app: ASGIApp) -> ASGIApp:
    """Wrap an application so that :class:`HttpConnection` learns when a response is complete."""

    async def tracked(scope: Scope, receive: Receive, send: Send) -> None:
        connection: HttpConnection = scope["state"].pop(_CONNECTION)

        async def tracked_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                connection.answered = True
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                connection.response_complete()

        await app(scope, receive, tracked_send)

    return tracked


class HttpConnection(asyncio.Protocol):
    """Passes request heads to uvicorn's protocol and bounds the time for each step.

    Args:
        make_protocol: makes uvicorn's protocol; its argument is the ``state`` of each request's ASGI scope. The
            application must be wrapped by :func:`track_responses`.
        admit: decides when the connection is made whether it may stay.
        closed: called once when the connection has ended.
        idle_seconds: longest time between two requests, and for a client that does not read.

    Attributes:
        transport: ``None`` until the connection is made, with TLS after the handshake.
        answered: whether a request was answered without an error.
        waiting_since: since when no request is being answered, seconds of the monotonic clock.
    """

    def __init__(
        self,
        make_protocol: Callable[[dict[str, object]], asyncio.Protocol],
        admit: Callable[[asyncio.BaseTransport], bool],
        closed: Callable[[], None],
        idle_seconds: float,
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self.answered = False
        self.waiting_since = time.monotonic()
        self._protocol = make_protocol({_CONNECTION: self})
        self._admit = admit
        self._closed = closed
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._responding = False
        self._close_after_response = False
        self._write_paused = False
        self._head_begun = False
        self._request_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered and the client reads the answer."""
        return self._responding and not self._write_paused

    def abort(self) -> None:
        """Close at once, without sending what is buffered."""
        if self.transport is not None:
            self.transport.abort()

    def shut_down(self) -> None:
        """Close; after the response, if a request is being answered."""
        if self._responding:
            self._close_after_response = True
        else:
            self._close()

    def response_complete(self) -> None:
        """Continue with the next request; called by :func:`track_responses`."""
        self._responding = False
        self.waiting_since = time.monotonic()
        if self._close_after_response or self._is_closing():
            self._close()
            return
        if self.transport is not None:
            self.transport.resume_reading()
        self._head_begun = False
        self._close_within(self._idle_seconds)
        self._pass_head()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._protocol.connection_made(transport)
        if self._admit(transport):
            self._expect_head()
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_closing():
            return
        self._received += data
        if not self._responding:
            self._pass_head()
        elif len(self._received) > HEAD_BYTES_AT_MOST and self.transport is not None:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()
        self._write_paused = True
        self.waiting_since = time.monotonic()
        self._abort_within(self._idle_seconds)

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
        self._write_paused = False
        self._cancel_abort()
        if self._is_closing():
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._cancel_abort()
        self._protocol.connection_lost(None)  # after an error uvicorn would keep its own timer, and this connection
        self._closed()

    def _pass_head(self) -> None:
        """Pass the next request head to uvicorn, if it is complete."""
        if not self._received:
            return
        try:
            head = next_head(self._received)
        except RequestRefused as refused:
            self._refuse(refused)
            return
        self._expect_head()
        if head is None:
            return
        self._stop_waiting()
        self._responding = True
        self._protocol.data_received(head)
        if self._is_closing():  # uvicorn has refused it
            self._close()

    def _refuse(self, refused: RequestRefused) -> None:
        body = f"{refused.text}\n".encode()
        head = (
            f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        if self.transport is not None:
            self.transport.write(head if self._received.startswith(b"HEAD ") else head + body)
        self._close(_REFUSED_SECONDS)

    def _is_closing(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def _close(self, seconds: float | None = None) -> None:
        """Close once the buffer is sent and TLS has ended, or after so many seconds (default: the idle time)."""
        self._stop_waiting()
        self._received.clear()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()  # a second time, asyncio's TLS transport would lose the means to abort
        self._abort_within(self._idle_seconds if seconds is None else seconds)

    def _expect_head(self) -> None:
        """Start the time for a request head; later bytes of the same head do not prolong it."""
        if not self._head_begun:
            self._head_begun = True
            self._close_within(min(HEAD_SECONDS, self._idle_seconds))

    def _close_within(self, seconds: float) -> None:
        self._stop_waiting()
        self._request_timer = self._loop.call_later(seconds, self._close)

    def _stop_waiting(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _abort_within(self, seconds: float) -> None:
        if self._abort_timer is None:
            self._abort_timer = self._loop.call_later(seconds, self.abort)

    def _cancel_abort(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
