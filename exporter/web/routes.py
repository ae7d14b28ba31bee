"""The web application: its routes, and what all answers have in common.

No request reads a file or the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from email.utils import formatdate

import structlog
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.beams.snapshot import StoreSnapshot
from exporter.metrics.collectors import ScrapeMeter
from exporter.metrics.encoder import MetricsEncoder
from exporter.persistence.history import RunHistory
from exporter.privacy.identifiers import Identifiers
from exporter.process import gc_tuning
from exporter.web.api import Api, Explain
from exporter.web.authentication import Authentication, FailedLogins
from exporter.web.cross_site import is_cross_site, is_known_host
from exporter.web.events import EventBroadcaster
from exporter.web.metrics_endpoint import MetricsEndpoint, metrics_handler
from exporter.web.openapi import PREFIX
from exporter.web.page import CONTENT_SECURITY_POLICY, Page, PageLinks
from exporter.web.request_coalescing import ConcurrencyLimit
from exporter.web.reveal import IdReveal
from exporter.web.run_history import RunHistoryApi
from exporter.web.runbooks import Runbooks
from exporter.web.small_pages import SmallPages, exception_handlers
from exporter.web.web_config_reload import ActiveWebConfig

_LOG = structlog.get_logger(__name__)

_PAGES_AT_ONCE = 4
_PROBES_AT_ONCE = 2
"""Answers made at the same time. More would not be faster, and would delay scrapes and pollers."""
_REQUEST_BYTES = 16 * 1024
"""Estimate of what a request leaves to the garbage collector, besides its answer."""

_HEADERS_OF_ALL = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_RELOAD_FORBIDDEN = (
    "Reloading over HTTP is not enabled. Start the exporter with --web.enable-lifecycle, or send it SIGHUP.\n"
)
_RELOAD_CROSS_SITE = "A page of another site asked for this. Reload with curl, or send the exporter SIGHUP.\n"
_MISDIRECTED = PlainTextResponse(
    "This exporter does not answer to the name that was asked for. If it is one of its own, add it to "
    "web.allowed_hosts in its configuration.\n",
    421,
)


class ReloadFailed(Exception):
    """The new configuration is refused and the old one stays in use; the message says why."""


def build_app(
    *,
    encoder: MetricsEncoder,
    registry: CollectorRegistry,
    meter: ScrapeMeter,
    snapshot: Callable[[], StoreSnapshot],
    explain: Explain,
    identifiers: Identifiers,
    events: EventBroadcaster,
    id_reveal: IdReveal,
    links: PageLinks,
    healthy: Callable[[], str | None],
    ready: Callable[[], str | None],
    reload: Callable[[], None],
    enable_lifecycle: bool,
    count_error: Callable[[str], None],
    version: str,
    allowed_hosts: Collection[str] = (),
    web_config: ActiveWebConfig | None = None,
    failed_logins: FailedLogins | None = None,
    history: RunHistory | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> ASGIApp:
    """Make the web application: ``/metrics``, ``/api/v1``, ``/-/healthy``, ``/-/ready``, ``/-/reload`` and the page.

    All callables are called in worker threads: they may wait for a lock, but not for long.

    Args:
        encoder: what ``/metrics`` shows.
        registry: further metrics, encoded by the client library.
        meter: records duration and size of each scrape.
        snapshot: makes a snapshot of all beams, for API and page.
        explain: returns the evidence about a beam.
        identifiers: turns ids, paths and texts into what may leave the process.
        events: sends changes to open pages; the server must end its streams when it stops.
        id_reveal: shows the ids behind pseudonyms to some users.
        links: the page's links to other servers.
        healthy: returns ``None`` while the exporter works, otherwise why it does not.
        ready: returns ``None`` once beams are followed, otherwise what is missing.
        reload: reads the configuration again; raises :class:`ReloadFailed` where it is refused.
        enable_lifecycle: whether ``/-/reload`` is allowed.
        count_error: called with the place of an unexpected error: ``scrape`` or ``web``.
        version: shown on the page.
        allowed_hosts: host names of this server, in lower case; empty: any.
        web_config: users and further headers; without it, everybody is admitted.
        failed_logins: counts failed logins.
        history: the history of runs; ``None`` where none is kept.
        clock: seconds from any start, for the duration of scrapes.
    """

    def health(_: Request) -> Response:
        return _state("healthy", healthy())

    def readiness(_: Request) -> Response:
        return _state("ready", ready())

    def reloading(request: Request) -> Response:
        if not enable_lifecycle:
            return PlainTextResponse(_RELOAD_FORBIDDEN, 403)
        if is_cross_site(request):
            return PlainTextResponse(_RELOAD_CROSS_SITE, 403)
        try:
            reload()
        except ReloadFailed as error:
            return PlainTextResponse(f"The configuration was refused, the old one stays in use:\n{error}\n", 500)
        return PlainTextResponse("The configuration was read again.\n")

    small_pages = SmallPages(version)
    metrics = MetricsEndpoint(encoder, registry, meter, count_error, clock)
    routes = [
        *Page(
            snapshot, identifiers, links, version, can_reveal_ids=id_reveal.offered, keeps_history=history is not None
        ).routes(),
        *Runbooks().routes(),
        Route("/metrics", metrics_handler(metrics)),
        Route("/-/healthy", health),
        Route("/-/ready", readiness),
        Route("/-/reload", reloading, methods=["POST", "PUT"]),
        Route(f"{PREFIX}/events", events.answer),
        id_reveal.route,
        *Api(snapshot, explain, identifiers, version).routes(),
        RunHistoryApi(history, snapshot, identifiers).route,
        *small_pages.routes(),
    ]
    app = Starlette(routes=routes, exception_handlers=exception_handlers(small_pages))
    app.router.redirect_slashes = False  # a redirect would name the host of the request, which a proxy may have changed
    web_config = web_config or ActiveWebConfig()
    limited = ConcurrencyLimit(
        _with_options(app, routes), _concurrency_class, {"page": _PAGES_AT_ONCE, "probe": _PROBES_AT_ONCE}
    )
    authenticated = Authentication(limited, lambda: web_config.users, failed_logins or FailedLogins())
    return _outermost(authenticated, count_error, web_config, frozenset(allowed_hosts))


def _concurrency_class(path: str) -> str | None:
    """Choose the limit of a path. Scrapes share their answers and need none; event streams would never free a slot."""
    if path in ("/metrics", f"{PREFIX}/events"):
        return None
    return "probe" if path.startswith("/-/") else "page"


def _state(word: str, trouble: str | None) -> Response:
    return PlainTextResponse(f"{word}\n") if trouble is None else PlainTextResponse(f"not {word}: {trouble}\n", 503)


def _with_options(app: ASGIApp, routes: Sequence[BaseRoute]) -> ASGIApp:
    """Answer ``OPTIONS`` for each route and for ``*`` with the allowed methods alone."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await app(scope, receive, send)
            return
        methods: set[str] = set()
        for route in routes:
            if scope["path"] == "*" or route.matches(scope)[0] is not Match.NONE:
                methods |= getattr(route, "methods", None) or set()
        if methods:
            response = Response(status_code=204, headers={"Allow": ", ".join(sorted({"OPTIONS", *methods}))})
        else:
            response = PlainTextResponse("Not Found", 404)
        await response(scope, receive, send)

    return answer


def _outermost(
    app: ASGIApp, count_error: Callable[[str], None], web_config: ActiveWebConfig, allowed_hosts: frozenset[str]
) -> ASGIApp:
    """Add the headers of every answer, and log and count unexpected errors, which Starlette has answered with 500."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        size_bytes = _REQUEST_BYTES

        async def send_with_headers(message: Message) -> None:
            nonlocal size_bytes
            size_bytes += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Date"] = formatdate(usegmt=True)
                for name, value in _HEADERS_OF_ALL:
                    headers.append(name, value)
                for name, value in web_config.headers.items():
                    headers[name] = value
            await send(message)

        known = not allowed_hosts or scope["type"] != "http" or is_known_host(Headers(scope=scope), allowed_hosts)
        try:
            await (app if known else _MISDIRECTED)(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 -- logged and counted here; the server would only log it a second time
            _LOG.error("cannot answer a request", path=scope.get("path"), exc_info=error)
            count_error("web")
        finally:
            gc_tuning.report_garbage(size_bytes)

    return answer
