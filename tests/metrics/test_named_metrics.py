"""``/metrics?name[]=...``: scrapes of named metrics."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.metrics.definitions import GROUPS, metric_names
from exporter.metrics.encoder import MetricGroup, MetricsEncoder
from exporter.metrics.metric_types import Definition, gauge
from tests.web.site import Site, serve
from tests.web.test_metrics_endpoint import PROMETHEUS_2_ACCEPT


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


def _families(site: Site, *names: str, **headers: str) -> dict[str, Any]:
    answer = site.client.get("/metrics", params={"name[]": list(names)}, headers=headers)
    assert answer.status_code == 200
    openmetrics = answer.headers["content-type"].startswith("application/openmetrics-text")
    families = parse_openmetrics(answer.text) if openmetrics else parse_text(answer.text)  # type: ignore[no-untyped-call]
    return {family.name: family for family in families}


@pytest.mark.parametrize("accept", ["", PROMETHEUS_2_ACCEPT])
def test_a_scrape_of_named_metrics_has_them_as_in_a_full_scrape_and_no_others(site: Site, accept: str) -> None:
    whole = _families(site, accept=accept)
    some = _families(site, "mqi_beam_state", "mqi_beams", accept=accept)

    assert some == {name: whole[name] for name in ("mqi_beam_state", "mqi_beams")}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mqi_batch_duration_seconds_bucket", "mqi_batch_duration_seconds"),
        ("mqi_source_poll_seconds_sum", "mqi_source_poll_seconds"),
        ("mqi_beam_runs_total", "mqi_beam_runs"),
        ("mqi_beam_runs", "mqi_beam_runs"),
        ("process_cpu_seconds_total", "process_cpu_seconds"),
        ("python_info", "python_info"),
    ],
)
def test_the_name_of_a_sample_selects_its_whole_metric(site: Site, name: str, family: str) -> None:
    assert _families(site, name, accept=PROMETHEUS_2_ACCEPT).keys() == {family}


def test_every_metric_can_be_asked_for_by_its_name() -> None:
    for _, table in GROUPS:
        for metric in table:
            assert metric_names([metric.name, "unknown"]) == {metric.name}


@pytest.mark.parametrize(("accept", "text"), [("", ""), (PROMETHEUS_2_ACCEPT, "# EOF\n")])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_unknown_name_is_an_empty_valid_answer(site: Site, accept: str, text: str, encoding: str) -> None:
    headers = {"accept": accept, "accept-encoding": encoding}
    with site.client.stream("GET", "/metrics?name[]=mqi_no_such", headers=headers) as answer:
        body = b"".join(answer.iter_raw())

    assert answer.status_code == 200
    assert (gzip.decompress(body) if encoding == "gzip" else body) == text.encode()


def test_head_answers_for_named_metrics_as_get_does(site: Site) -> None:
    question = "/metrics?name[]=mqi_beam_state"
    got, head = (site.client.request(method, question) for method in ("GET", "HEAD"))

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_100_names_are_answered_and_101_are_refused(site: Site) -> None:
    names = [f"unknown{number}" for number in range(101)]

    assert site.client.get("/metrics", params={"name[]": names[:100]}).status_code == 200
    refused = site.client.get("/metrics", params={"name[]": names})
    assert refused.status_code == 400
    assert refused.text == "At most 100 name[] at once, 101 were given; without any, all are shown.\n"


def test_only_full_scrapes_are_measured(site: Site) -> None:
    site.get("/metrics?name[]=mqi_beam_state")

    assert site.scrapes.read()[0].count == 0


def test_concurrent_scrapes_of_different_names_get_their_own_metrics(site: Site) -> None:
    names = ["mqi_beams", "mqi_beam_run", "mqi_beam_state"] * 4
    with ThreadPoolExecutor(len(names)) as scrapers:
        shown = [families.keys() for families in scrapers.map(lambda name: _families(site, name), names)]

    assert shown == [{name} for name in names]


def test_metrics_that_were_not_requested_are_not_read() -> None:
    def refuse(_: object) -> float:
        raise AssertionError("read although nobody asked for it")

    asked_for = gauge("mqi_x", (), "X.", lambda item: item)
    other: Definition[int] = gauge("mqi_y", (), "Y.", refuse)
    encoder = MetricsEncoder(lambda: [MetricGroup([asked_for, other], [3], [""])])

    assert b"".join(encoder.encode(openmetrics=False, names={"mqi_x"})).endswith(b"\nmqi_x 3\n")
