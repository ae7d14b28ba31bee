"""The thread that serves the web application.

uvicorn and h11 read requests and write answers; nothing of them is overridden. Around them are bounds:
:mod:`exporter.web.connections` for the number of clients, :mod:`exporter.web.http_connection` for slow ones, and
:mod:`exporter.web.request_heads` for what a request may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import structlog
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from exporter.config.listen_address import address_of, open_listener
from exporter.web.authentication import FailedLogins
from exporter.web.connections import Acceptor
from exporter.web.http_connection import HEAD_SECONDS, HttpConnection, track_responses
from exporter.web.tls import names_of
from exporter.web.web_config_reload import ActiveWebConfig

_LOG = structlog.get_logger(__name__)

_IDLE_SECONDS = 75
"""Longer than the usual scrape intervals, so that a scraper keeps its connection."""
_RELOAD_SECONDS = 1.0
"""How often the web configuration and the files it names are checked for changes."""
_FINISH_SECONDS = 1.0
"""How long answers under way may take when the server stops."""
_STOP_SECONDS = 2.0


class WebServer:
    """Serves an application in a thread of its own.

    The socket listens when the object is made, so a taken port is known before anything else has started. Requests
    are answered from :meth:`start` on.

    Args:
        app: the application, from :func:`build_app`.
        listen_address: ``127.0.0.1:10813``, ``:10813``, ``[::1]:10813``, ``localhost:10813``; port 0 takes any.
        idle_seconds: how long a connection may be without a complete request, or not read its answer.
        web_config: TLS and whose certificates are accepted; plain HTTP where not given.
        failed_logins: counts refused certificates.
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
        self._idle_seconds = idle_seconds
        self._web_config = web_config or ActiveWebConfig()
        self._failed_logins = failed_logins or FailedLogins()
        self._end_streams = end_streams
        self._uvicorn = uvicorn.Config(
            track_responses(app),
            http=H11Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # it warns of each malformed request: an attacker could fill the log
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # the application sends it; uvicorn would need a timer
            timeout_keep_alive=int(idle_seconds + HEAD_SECONDS) + 1,  # HttpConnection closes idle connections earlier
        )
        self._uvicorn_state = ServerState()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._serving_or_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs; ``False`` after :meth:`start` and before :meth:`stop` means that it has died."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to answer requests; returns when they are answered."""
        self._thread.start()
        self._serving_or_ended.wait()

    def stop(self) -> None:
        """End the thread and close the socket and all connections, within 2 s. May be called again, or unstarted."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the event loop is closed already
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                _LOG.error("web server did not end in time; an answer under way hangs", seconds=_STOP_SECONDS)
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 -- the last place where the end of the thread can be logged
            _LOG.error("web server died", address=self.address, exc_info=error)
        finally:
            self._serving_or_ended.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        acceptor = Acceptor(
            self._make_connection, lambda: self._web_config.tls_context, self._count_refused_certificate
        )
        acceptor.start(self._listener)
        reload = asyncio.create_task(self._reload_web_config(acceptor)) if self._web_config.configured else None
        self._serving_or_ended.set()
        await self._stopping.wait()
        if reload is not None:
            reload.cancel()
        acceptor.stop()
        self._listener.close()
        self._end_streams(True)
        acceptor.shut_down_connections()
        await acceptor.abort_after(_FINISH_SECONDS)
        await asyncio.sleep(0)  # lets the transports close their sockets before the loop ends

    def _make_connection(self, closed: Callable[[], None]) -> HttpConnection:
        def protocol(state: dict[str, object]) -> asyncio.Protocol:
            return H11Protocol(self._uvicorn, self._uvicorn_state, state)

        return HttpConnection(protocol, self._admits, closed, self._idle_seconds)

    def _admits(self, transport: asyncio.BaseTransport) -> bool:
        """Check the name in the client's certificate, where names are configured."""
        allowed = self._web_config.allowed_client_names
        tls = transport.get_extra_info("ssl_object")
        if not allowed or (tls is not None and not allowed.isdisjoint(names_of(tls.getpeercert()))):
            return True
        self._count_refused_certificate()
        return False

    def _count_refused_certificate(self) -> None:
        self._failed_logins.count("certificate")

    async def _reload_web_config(self, acceptor: Acceptor) -> None:
        """Use a changed web configuration; clients admitted under the old one must connect again."""
        generation = self._web_config.generation
        while True:
            await asyncio.sleep(_RELOAD_SECONDS)
            try:
                await run_in_threadpool(self._web_config.refresh)
                if generation != self._web_config.generation:
                    generation = self._web_config.generation
                    self._end_streams(False)
                    acceptor.shut_down_connections()
            except Exception as error:  # noqa: BLE001 -- a loop that ended would leave revoked passwords in use for ever
                _LOG.error("cannot use a changed web configuration", exc_info=error)
