"""``/metrics``: answers scrapes from memory.

A scrape reads no file and no database, except that the client library's own ``process_*`` metrics read ``/proc``. A
scrape that fails gets one answer 500, one log line and one count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from exporter.metrics.encoder import MetricsEncoder, gzip_chunks
from exporter.web.content_negotiation import content_type, gzip_accepted
from exporter.web.request_coalescing import Answer, RequestCoalescer

_LOG = structlog.get_logger(__name__)

_NAMES = "name[]"
"""The parameter that selects metrics by name; Prometheus' client libraries call it so, too."""
_MAX_NAMES = 100


def metrics_handler(metrics: MetricsEndpoint) -> Answer:
    """Return the handler of ``/metrics``.

    Scrapes of all metrics share their answers. Scrapes of some metrics do so apart from them, so that Prometheus waits
    for one of those at most.
    """
    all_metrics = RequestCoalescer(metrics.answer, _coalescing_key)
    some_metrics = RequestCoalescer(metrics.answer, _coalescing_key)

    async def answer(request: Request) -> Response:
        names = _requested_names(request)
        if names is None:
            return await all_metrics.answer(request)
        if len(names) > _MAX_NAMES:
            refusal = f"At most {_MAX_NAMES} {_NAMES} at once, {len(names)} were given; without any, all are shown.\n"
            return PlainTextResponse(refusal, 400)
        return await some_metrics.answer(request)

    return answer


def _coalescing_key(request: Request) -> tuple[str, bool, frozenset[str] | None]:
    """Return what two scrapes must have in common to get the same answer: format, compression and names."""
    return content_type(request.headers)[0], gzip_accepted(request.headers), _requested_names(request)


def _requested_names(request: Request) -> frozenset[str] | None:
    """Return the names of the requested metrics; ``None`` means all."""
    return frozenset(request.query_params.getlist(_NAMES)) or None


class MetricsEndpoint:
    """Encodes scrapes in a worker thread, so that the event loop stays free.

    Args:
        encoder: encodes our own metrics.
        registry: further metrics, encoded by the client library.
        meter: gets the time and size of each scrape of all metrics.
        count_error: called with ``scrape`` when a scrape fails.
        clock: returns seconds from any start.
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
        """Answer one scrape."""
        media_type, openmetrics = content_type(request.headers)
        compress = gzip_accepted(request.headers)
        try:
            return await run_in_threadpool(self._render, media_type, openmetrics, compress, _requested_names(request))
        except Exception as error:  # noqa: BLE001 -- whatever a collector does, the scraper gets an answer
            # The client library adds all samples of the metric to the exception; a log line must not hold them.
            error.args = error.args[:1]
            _LOG.error("cannot render the metrics of a scrape", exc_info=error)
            self._count_error("scrape")
            return PlainTextResponse("The metrics could not be collected; the exporter's log says why.\n", 500)

    def _render(self, media_type: str, openmetrics: bool, compress: bool, names: frozenset[str] | None) -> Response:
        started = self._clock()
        size_bytes = 0

        def measured(chunks: Iterable[bytes]) -> Iterator[bytes]:
            nonlocal size_bytes
            for chunk in chunks:
                size_bytes += len(chunk)
                yield chunk

        chunks = measured(self._chunks(openmetrics, names))
        headers = {"Content-Type": media_type, "Vary": "Accept, Accept-Encoding"}
        if compress:
            headers["Content-Encoding"] = "gzip"
            chunks = gzip_chunks(chunks)
        body = b"".join(chunks)
        if names is None:
            self._meter.observe(seconds=self._clock() - started, size_bytes=size_bytes)
        return Response(body, headers=headers)

    def _chunks(self, openmetrics: bool, names: frozenset[str] | None) -> Iterator[bytes]:
        """Yield our own metrics, then those of the registry with the end mark of OpenMetrics."""
        yield from self._encoder.encode(openmetrics=openmetrics, names=None if names is None else metric_names(names))
        encode = openmetrics_encoder.generate_latest if openmetrics else generate_latest
        # A restricted registry has all that the encoders use, but not the type that the library declares for them.
        restricted = self._registry if names is None else self._registry.restricted_registry(names)
        yield encode(cast(CollectorRegistry, restricted))
