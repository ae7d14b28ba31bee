"""``/metrics``: a scrape from what is in memory.

Nothing here reads a file or a database (the client's own ``process_*`` read ``/proc``). A scrape that fails is one
answer 500, one log line and one count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_encoder
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from exporter.metrics.collectors import ScrapeMeter
from exporter.metrics.definitions import metric_names
from exporter.metrics.encoder import MetricsEncoder
from exporter.metrics.gzip_chunks import gzipped, plain
from exporter.web.content_negotiation import gzip_accepted
from exporter.web.content_types import content_type
from exporter.web.request_coalescing import Answer, RequestCoalescer

_LOG = structlog.get_logger(__name__)

_NAMES = "name[]"
"""Parameter of ``/metrics``: only metrics of these names, as Prometheus' clients have it."""
_NAMES_AT_MOST = 100


def metrics_handler(metrics: MetricsEndpoint) -> Answer:
    """Scrapes of everything share their answers; those of some metrics wait in a row of their own.

    However many ask for different names, Prometheus waits for one of them at most.
    """
    everything, named = (
        RequestCoalescer(metrics.answer, _sort_of_scrape),
        RequestCoalescer(metrics.answer, _sort_of_scrape),
    )

    async def answer(request: Request) -> Response:
        names = _names(request)
        if names is None:
            return await everything.answer(request)
        if len(names) > _NAMES_AT_MOST:
            told = f"At most {_NAMES_AT_MOST} {_NAMES} at once, {len(names)} were given; without any, all are shown.\n"
            return PlainTextResponse(told, 400)
        return await named.answer(request)

    return answer


def _sort_of_scrape(request: Request) -> tuple[str, bool, frozenset[str] | None]:
    """Format, compression and names: what is the same for two scrapes with the same answer."""
    return content_type(request.headers)[0], gzip_accepted(request.headers), _names(request)


def _names(request: Request) -> frozenset[str] | None:
    """Which metrics are asked for; ``None``: all."""
    return frozenset(request.query_params.getlist(_NAMES)) or None


class MetricsEndpoint:
    """Renders a scrape, off the event loop.

    Args:
        encoder: what is shown.
        registry: what is shown besides, by the client's own encoder.
        meter: told the time and size of each scrape of everything.
        count_error: told of ``scrape`` where one could not be made.
        clock: seconds from any start.
    """

    def __init__(
        self,
        encoder: MetricsEncoder,
        registry: CollectorRegistry,
        meter: ScrapeMeter,
        count_error: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._encoder = encoder
        self._registry = registry
        self._meter = meter
        self._count_error = count_error
        self._clock = clock

    async def answer(self, request: Request) -> Response:
        """One scrape; :class:`~exporter.web.request_coalescing.RequestCoalescer` asks for one at a time."""
        said, openmetrics = content_type(request.headers)
        compress = gzip_accepted(request.headers)
        try:
            return await run_in_threadpool(self._render, said, openmetrics, compress, _names(request))
        except Exception as error:  # noqa: BLE001 -- whatever a collector does, the scraper gets an answer
            # The client adds the whole family with all its samples to the exception; a log line must not hold it.
            error.args = error.args[:1]
            _LOG.error("cannot render the metrics of a scrape", exc_info=error)
            self._count_error("scrape")
            return PlainTextResponse("The metrics could not be collected; the exporter's log says why.\n", 500)

    def _render(self, said: str, openmetrics: bool, compress: bool, names: frozenset[str] | None) -> Response:
        started = self._clock()
        encode = openmetrics_encoder.generate_latest if openmetrics else generate_latest
        if names is None:
            scrape = self._encoder.encode(openmetrics=openmetrics, further=encode(self._registry))
        else:
            # The client's type wants a registry, its encoders nothing but what a restricted one has, too.
            further = encode(cast(CollectorRegistry, self._registry.restricted_registry(names)))
            scrape = self._encoder.encode(openmetrics=openmetrics, further=further, names=metric_names(names))
        headers = {"Content-Type": said, "Vary": "Accept, Accept-Encoding"}
        if compress:
            body = gzipped(scrape)
            headers["Content-Encoding"] = "gzip"
        else:
            body = plain(scrape)
        if names is None:
            self._meter.observe(seconds=self._clock() - started, size_bytes=scrape.size_bytes)
        return Response(body, headers=headers)
