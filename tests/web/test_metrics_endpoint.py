"""``/metrics`` over real connections."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable
from contextlib import ExitStack, closing

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.logs import recorded_logs
from tests.web.site import (
    PATIENCE_SECONDS,
    FunctionCollector,
    Site,
    in_thread,
    is_accepted,
    read_to_end,
    serve,
    wait_until,
)

PROMETHEUS_2_ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    "accept", ["*/*", "text/plain", "text/html,*/*;q=0.8", "application/openmetrics-text;version=x.y"]
)
def test_metrics_are_text_0_0_4_where_nothing_newer_is_asked_for(site: Site, accept: str) -> None:
    answer = site.get("/metrics", accept=accept)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "mqi_beam_batches_total" in {family.name for family in parse_text(answer.text)}


@pytest.mark.parametrize("accept", [PROMETHEUS_2_ACCEPT, PROMETHEUS_3_ACCEPT, "application/openmetrics-text"])
def test_metrics_are_openmetrics_for_prometheus(site: Site, accept: str) -> None:
    answer = site.get("/metrics", accept=accept)

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = {family.name: family.type for family in parse_openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    assert families["mqi_beam_batches_total"] == "gauge"
    assert families["mqi_beam_runs"] == "counter"


def test_metrics_are_the_newer_text_where_it_is_asked_for(site: Site) -> None:
    answer = site.get("/metrics", accept="text/plain;version=1.0.0;escaping=allow-utf-8")

    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0; charset=utf-8")
    assert "mqi_beam_batches_total" in {family.name for family in parse_text(answer.text)}


def test_metrics_are_compressed_only_where_that_is_accepted(site: Site) -> None:
    plain = site.get("/metrics", **{"accept-encoding": "identity"})
    with site.client.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as compressed:
        raw = b"".join(compressed.iter_raw())

    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.headers["vary"] == "Accept, Accept-Encoding"
    assert len(raw) < len(plain.content) / 4
    assert b"mqi_beam_batches_total" in gzip.decompress(raw)


def test_head_answers_like_get_without_a_body(site: Site) -> None:
    answer = site.client.head("/metrics", headers={"accept-encoding": "identity"})

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_each_scrape_is_measured_by_its_time_and_size_before_compression() -> None:
    times = iter([10.0, 10.25, 20.0, 20.5])
    with serve(FunctionCollector(list), clock=lambda: next(times)) as site:
        site.get("/metrics", **{"accept-encoding": "gzip"})
        last = site.get("/metrics", **{"accept-encoding": "gzip"})

        seconds, size_bytes = site.scrapes.read()

    assert (seconds.count, seconds.total) == (2, 0.75)
    assert size_bytes == len(last.content)


def test_a_collector_that_raises_is_one_500_one_log_line_and_one_count() -> None:
    broken = True

    def collect() -> Iterable[Metric]:
        if broken:
            raise RuntimeError("the store is upside down")
        return []

    with recorded_logs() as lines, serve(FunctionCollector(collect)) as site:
        failed = site.get("/metrics")
        broken = False
        recovered = site.get("/metrics")

    assert (failed.status_code, recovered.status_code) == (500, 200)
    assert "upside down" not in failed.text
    assert site.errors == ["scrape"]
    assert [line["event"] for line in lines] == ["cannot render the metrics of a scrape"]
    assert str(lines[0]["exc_info"]) == "the store is upside down"
    assert site.scrapes.read()[0].count == 1


def test_a_value_that_cannot_be_shown_does_not_fill_the_log_with_all_others() -> None:
    family = GaugeMetricFamily("mqi_x", "X.", labels=["n"])
    for number in range(1000):
        family.add_metric([str(number)], number)
    family.add_metric(["huge"], 10**400)

    with recorded_logs() as lines, serve(FunctionCollector(lambda: [family])) as site:
        assert site.get("/metrics").status_code == 500

    assert len(lines) == 1
    assert len(repr(lines[0])) < 1000


def test_scrapes_are_rendered_one_at_a_time() -> None:
    busy, overlapped = threading.Lock(), threading.Event()

    def collect() -> Iterable[Metric]:
        if not busy.acquire(blocking=False):
            overlapped.set()
            return []
        overlapped.wait(0.2)
        busy.release()
        return []

    with serve(FunctionCollector(collect)) as site:
        scrapes = [in_thread(lambda: httpx.get(f"http://{site.server.address}/metrics")) for _ in range(4)]
        for thread, _ in scrapes:
            thread.join(PATIENCE_SECONDS)

    assert [answer.status_code for _, answers in scrapes for answer in answers] == [200] * 4
    assert not overlapped.is_set()


def test_health_answers_while_a_scrape_takes_long() -> None:
    begun, released = threading.Event(), threading.Event()

    def collect() -> Iterable[Metric]:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return []

    with serve(FunctionCollector(collect)) as site:
        scrape, answers = in_thread(
            lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS)
        )
        assert begun.wait(PATIENCE_SECONDS)
        health = site.get("/-/healthy")
        released.set()
        scrape.join(PATIENCE_SECONDS)

    assert (health.status_code, answers[0].status_code) == (200, 200)


def test_a_waiting_scrape_whose_client_has_gone_is_not_rendered() -> None:
    begun, released, collected = threading.Event(), threading.Event(), list[int]()

    def collect() -> Iterable[Metric]:
        collected.append(1)
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return []

    with serve(FunctionCollector(collect)) as site:
        first, answers = in_thread(lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS))
        assert begun.wait(PATIENCE_SECONDS)
        with closing(site.connect()) as impatient:
            impatient.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            name = impatient.getsockname()
            wait_until(lambda: is_accepted(name))
        wait_until(lambda: not is_accepted(name))
        released.set()
        first.join(PATIENCE_SECONDS)
        assert site.get("/metrics").status_code == 200

    assert answers[0].status_code == 200
    assert len(collected) == 2


def test_scrapes_that_wait_share_one_rendering() -> None:
    begun, released, rendered = threading.Event(), threading.Event(), list[int]()

    def collect() -> Iterable[Metric]:
        rendered.append(1)
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return [GaugeMetricFamily("mqi_x", "X.", value=len(rendered))]

    with serve(FunctionCollector(collect)) as site:
        url = f"http://{site.server.address}/metrics"
        first, _ = in_thread(lambda: httpx.get(url, timeout=PATIENCE_SECONDS).text)
        assert begun.wait(PATIENCE_SECONDS)
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with ExitStack() as connections:
            waiting = [connections.enter_context(closing(site.connect())) for _ in range(20)]
            for connection in waiting:
                connection.sendall(asked)
            # What is asked later is answered later: when this is answered, the scrapes have been heard.
            assert site.get("/-/healthy").status_code == 200
            released.set()
            answers = [read_to_end(connection) for connection in waiting]
        first.join(PATIENCE_SECONDS)

    assert all(b"mqi_x 2.0" in answer or b"mqi_x 3.0" in answer for answer in answers), "none from before its question"
    assert len(rendered) <= 3
