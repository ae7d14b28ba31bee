"""The thread that serves the web application, and its connections.

A client that is slow, silent or gone costs a connection until its time is over, and never the exporter's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
import structlog
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.config.listen_address import address_of, open_listener
from exporter.web.authentication import FailedLogins
from exporter.web.connections import Door, Guest
from exporter.web.request_heads import Requests
from exporter.web.tls import names_of
from exporter.web.web_config_reload import ActiveWebConfig

_LOG = structlog.get_logger(__name__)

_IDLE_SECONDS = 75
"""A connection between two requests is closed after this: longer than the usual scrape intervals, so that a scraper
keeps its connection."""
_HEAD_SECONDS = 10
"""A request's head must be complete so long after its first byte (a connection's first one: after the connection)."""
_REFRESH_SECONDS = 1.0
"""How often it is looked whether the web configuration and its files have changed."""
_DATE_SECONDS = 1.0
"""How old the date in an answer's head may be."""
_REFUSED_SECONDS = 1.0
"""How long a connection may last that has been told that it is over; with TLS its client is to say goodbye."""
_FINISH_SECONDS = 1
"""How long answers under way may take at a stop."""
_STOP_SECONDS = 2.0


class _Connection(H11Protocol):
    """A connection that is closed when its client is too slow: with a request's head, between two, or reading.

    uvicorn itself counts only the time after an answer: clients that connect and say nothing, or half a request, or a
    byte now and then, would stay forever. Those that do not read, too.
    """

    def __init__(
        self, guest: Guest, door: Door, web_config: ActiveWebConfig, refused: Callable[[], None], **parts: Any
    ):
        super().__init__(**parts)
        self.conn: Requests = Requests()
        self.answered = False
        self._over = False
        self._guest = guest
        self._door = door
        self._web_config = web_config
        self._refused = refused
        self._reads = True
        self._deadline: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.app = functools.partial(self._watched, self.app)

    @property
    def busy(self) -> bool:
        """Whether an answer is under way, and its client takes it."""
        return self.cycle is not None and not self.cycle.response_complete and self._reads

    def abort(self) -> None:
        """End it now."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._guest.held = self
        if self._is_welcome():
            self._expect_head()
        else:
            self._refused()
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._forget_deadline()
        self._bound_the_end()

    def on_response_complete(self) -> None:
        self._guest.waiting_since = time.monotonic()
        super().on_response_complete()
        self._bound_the_end()

    def pause_writing(self) -> None:
        super().pause_writing()  # the client does not read what it asked for
        self._reads = False
        self._guest.waiting_since = time.monotonic()
        self._patience = self.loop.call_later(self.timeout_keep_alive, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reads = True
        self._forget_patience()
        self._bound_the_end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._forget_deadline()
        self._forget_patience()
        self._door.left(self._guest)

    def shutdown(self) -> None:
        """Close it, after the answer under way if there is one."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # it was about to be closed, and its client does not read why
            self.abort()
        self._bound_the_end()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, or why it is refused; in the place of the answer under way, if there is one."""
        self._over = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The connection ends a moment later only: until then the application would answer into what is over.
            cycle.disconnected = True
            cycle.message_event.set()
        status, text = self.conn.refused or (400, msg)
        with contextlib.suppress(h11.LocalProtocolError):  # another answer has begun, or one to HEAD has no body
            self._send_refusal(status, text)
        self.transport.close()
        self._forget_deadline()
        if self._patience is None:
            self._patience = self.loop.call_later(_REFUSED_SECONDS, self.abort)

    def _send_refusal(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        answer = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        self.transport.write(self.conn.send(answer) or b"")
        self.transport.write(self.conn.send(h11.Data(data=body)) or b"")

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_the_end()

    def _bound_the_end(self) -> None:
        """A close waits for what is still to be sent, and with TLS for the client's goodbye: not for ever."""
        if self.transport.is_closing() and self._patience is None:
            self._patience = self.loop.call_later(self.timeout_keep_alive, self.abort)

    def _is_welcome(self) -> bool:
        allowed = self._web_config.allowed_client_names
        tls = self.transport.get_extra_info("ssl_object")
        return not allowed or (tls is not None and not allowed.isdisjoint(names_of(tls.getpeercert())))

    def _expect_head(self) -> None:
        """Once for each request: further bytes of its head do not move the deadline."""
        if self._deadline is None:
            seconds = min(_HEAD_SECONDS, self.timeout_keep_alive)
            self._deadline = self.loop.call_later(seconds, self.shutdown)

    async def _watched(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.answered = True
            await send(message)

        await app(scope, receive, send_and_note)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _forget_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Server(uvicorn.Server):
    """uvicorn's server behind a door of our own, that says when it serves, and leaves no connection behind."""

    def __init__(
        self,
        config: uvicorn.Config,
        web_config: ActiveWebConfig,
        failed_logins: FailedLogins,
        end_streams: Callable[[bool], None],
    ) -> None:
        super().__init__(config)
        self._web_config = web_config
        self._failed_logins = failed_logins
        self._end_streams = end_streams
        self._door = Door(self._make_connection, lambda: web_config.tls_context, self._refused_certificate)
        self._refreshing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self.serving_or_over = threading.Event()

    def end(self) -> None:
        """Stop serving; from any thread."""
        self.should_exit = True
        with contextlib.suppress(RuntimeError):  # its loop is closed already
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        """Uvicorn's looks ten times a second whether to exit, which takes as much as a thousand idle logs."""
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _DATE_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        self.servers = []
        for listener in sockets or []:
            self._door.open(listener)
        if self._web_config.configured:
            self._refreshing = self._loop.create_task(self._refresh())
        self.started = True
        self.serving_or_over.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self._door.close()
        self._end_streams(True)
        await super().shutdown(sockets=sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # a client that does not read its answer would keep it open
        await asyncio.sleep(0)  # lets the transports close their sockets before the loop ends

    def _make_connection(self, guest: Guest) -> asyncio.Protocol:
        return _Connection(
            guest,
            self._door,
            self._web_config,
            self._refused_certificate,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def _refused_certificate(self) -> None:
        self._failed_logins.count("certificate")

    async def _refresh(self) -> None:
        """Use a changed web configuration; who came in under the old one must come in again."""
        generation = self._web_config.generation
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await run_in_threadpool(self._web_config.refresh)
                if generation != self._web_config.generation:
                    generation = self._web_config.generation
                    self._end_streams(False)
                    for connection in list(self.server_state.connections):
                        connection.shutdown()
            except Exception as error:  # noqa: BLE001 -- a loop that ended would leave revoked passwords in use for ever
                _LOG.error("cannot use a changed web configuration", exc_info=error)


class WebServer:
    """Serves an application in a thread of its own.

    The socket is bound, and listens, when the object is made, so that a taken port is known before anything else has
    started; requests are answered from :meth:`start` on.

    Args:
        app: the application, from :func:`build_app`.
        listen_address: ``127.0.0.1:10813``, ``:10813``, ``[::1]:10813``, ``localhost:10813``; port 0 takes any.
        idle_seconds: how long a connection may be without a complete request, or not read its answer.
        web_config: TLS and whose certificates are accepted; plain HTTP where not given.
        failed_logins: counts the certificates that are not.
        end_streams: ends answers that would go on for ever; called in the server's event loop when it stops (``True``),
            or when another web configuration is in use (``False``).

    Raises:
        exporter.config.listen_address.ListenError: the address cannot be listened at.
    """

    def __init__(
        self,
        app: ASGIApp,
        listen_address: str,
        *,
        idle_seconds: int = _IDLE_SECONDS,
        web_config: ActiveWebConfig | None = None,
        failed_logins: FailedLogins | None = None,
        end_streams: Callable[[bool], None] = lambda for_good: None,
    ) -> None:
        self._listener = open_listener(listen_address)
        self.address = address_of(self._listener)
        """Where it really listens, ``host:port``."""
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # it warns of each malformed request: an attacker could fill the log
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=idle_seconds,
                timeout_graceful_shutdown=_FINISH_SECONDS,
            ),
            web_config or ActiveWebConfig(),
            failed_logins or FailedLogins(),
            end_streams,
        )
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs; ``False`` after :meth:`start` and before :meth:`stop` means that it has died."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins to answer; returns when it does."""
        self._thread.start()
        self._server.serving_or_over.wait()

    def stop(self) -> None:
        """Ends the thread and closes the socket and all connections, within 2 s. May be called again, or unstarted."""
        self._server.end()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                _LOG.error("web server did not end in time; an answer under way hangs", seconds=_STOP_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except Exception as error:  # noqa: BLE001 -- the last place where a thread's end can be told
            _LOG.error("web server died", address=self.address, exc_info=error)
        finally:
            self._server.serving_or_over.set()
