"""The web server over real connections."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import os
import re
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from exporter.config.listen_address import ListenError, parse_listen_address
from exporter.metrics.collectors import ScrapeMeter, StoreCollector, process_registry
from exporter.metrics.encoder import MetricsEncoder
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.web.connections import CONNECTIONS_AT_MOST, CONNECTIONS_OF_ONE_ADDRESS
from exporter.web.events import EventBroadcaster
from exporter.web.page import PageLinks
from exporter.web.reveal import IdReveal
from exporter.web.routes import ReloadFailed, build_app
from exporter.web.server import WebServer
from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.certificates import Authority
from tests.support.logs import recorded_logs
from tests.support.process import wait_for
from tests.support.scheduling import seconds_of
from tests.web.store_snapshots import explain_of, make_full_snapshot

PATIENCE_SECONDS = 30.0
STOP_SECONDS = 2.0
PROMETHEUS_2_ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def _nothing() -> None:
    """Neither trouble nor result."""


class FunctionCollector(Collector):
    """A collector that does what the test wants."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


@dataclass
class Site:
    """A server that runs, a client of it, and what it reported."""

    server: WebServer
    client: httpx.Client
    scrapes: ScrapeMeter
    errors: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def connect(self) -> socket.socket:
        """A connection on which nothing has been said yet."""
        connection = socket.create_connection(parse_listen_address(self.server.address), timeout=PATIENCE_SECONDS)
        connection.settimeout(PATIENCE_SECONDS)
        return connection


@contextmanager
def serve(
    *collectors: Collector,
    idle_seconds: int = 75,
    listen_address: str = "127.0.0.1:0",
    event_options: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[Site]:
    """A server with a full store or, instead of it, these collectors, and what is changed about its application."""
    scrapes, errors = ScrapeMeter(), list[str]()
    registry = CollectorRegistry() if collectors else process_registry()
    for collector in collectors:
        registry.register(collector)
    store = StoreCollector(make_full_snapshot, identifiers=PlainIdentifiers())
    snapshot = changes.pop("snapshot", make_full_snapshot)
    identifiers = changes.pop("identifiers", PlainIdentifiers())
    events = EventBroadcaster(snapshot, identifiers, errors.append, **(event_options or {}))
    parts: dict[str, Any] = {
        "encoder": MetricsEncoder(*([] if collectors else [store])),
        "registry": registry,
        "meter": scrapes,
        "snapshot": snapshot,
        "explain": partial(explain_of, snapshot),
        "identifiers": identifiers,
        "events": events,
        "id_reveal": IdReveal(snapshot, identifiers),
        "links": PageLinks(),
        "healthy": _nothing,
        "ready": _nothing,
        "reload": _nothing,
        "enable_lifecycle": False,
        "count_error": errors.append,
        "version": "1.2.3",
    }
    server = WebServer(
        build_app(**{**parts, **changes}),
        listen_address,
        idle_seconds=idle_seconds,
        web_config=changes.get("web_config"),
        failed_logins=changes.get("failed_logins"),
        end_streams=events.end_streams,
    )
    server.start()
    try:
        with httpx.Client(base_url=f"http://{server.address}", timeout=PATIENCE_SECONDS) as client:
            yield Site(server, client, scrapes, errors)
    finally:
        server.stop()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def _in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def _end(connection: socket.socket) -> bytes:
    """What still arrives until the server closes; times out where it never does."""
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
    return bytes(received)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.01)


@contextmanager
def _accepted(client_name: object) -> Iterator[socket.socket | None]:
    """The server's end of a client's connection, which is in this same process; ``None`` where there is none."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(entry))
        except OSError:
            continue  # closed meanwhile
        try:
            candidate = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue  # not a socket
        with closing(candidate):
            try:
                found = candidate.getpeername() == client_name
            except OSError:
                continue  # a socket without a peer
            if found:
                yield candidate
                return
    yield None


def _is_accepted(client_name: object) -> bool:
    with _accepted(client_name) as accepted:
        return accepted is not None


# /metrics


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


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=mqi_beams", "/api/v1/beams", "/", "/static/page.js"])
@pytest.mark.parametrize("refusal", ["gzip;q=0", "GZIP; q=0.0", "gzip;q=0, *", "*;q=0", "br"])
def test_nothing_is_compressed_for_a_client_that_refuses_gzip(site: Site, path: str, refusal: str) -> None:
    assert "content-encoding" not in site.get(path, **{"accept-encoding": refusal}).headers


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=mqi_beams", "/api/v1/beams", "/"])
def test_a_weight_or_a_star_accepts_gzip(site: Site, path: str) -> None:
    for said in ("gzip;q=0.001", "*", "identity;q=0.5, *;q=0.1"):
        assert site.get(path, **{"accept-encoding": said}).headers["content-encoding"] == "gzip"


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
        scrapes = [_in_thread(lambda: httpx.get(f"http://{site.server.address}/metrics")) for _ in range(4)]
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
        scrape, answers = _in_thread(
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
        first, answers = _in_thread(
            lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS)
        )
        assert begun.wait(PATIENCE_SECONDS)
        with closing(site.connect()) as impatient:
            impatient.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            name = impatient.getsockname()
            _wait_until(lambda: _is_accepted(name))
        _wait_until(lambda: not _is_accepted(name))
        released.set()
        first.join(PATIENCE_SECONDS)
        assert site.get("/metrics").status_code == 200

    assert answers[0].status_code == 200
    assert len(collected) == 2


# health, readiness, reload, the page


@pytest.mark.parametrize(("path", "name"), [("/-/healthy", "healthy"), ("/-/ready", "ready")])
def test_health_and_readiness_name_the_problem(path: str, name: str) -> None:
    trouble: str | None = "source hpc1 has not been polled"
    with serve(**{name: lambda: trouble}) as site:  # type: ignore[arg-type]
        bad = site.get(path)
        trouble = None
        good = site.get(path)

    assert (bad.status_code, bad.text) == (503, f"not {name}: source hpc1 has not been polled\n")
    assert (good.status_code, good.text) == (200, f"{name}\n")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_is_forbidden_unless_enabled(method: str) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1)) as site:
        answer = site.client.request(method, "/-/reload")

    assert answer.status_code == 403
    assert "--web.enable-lifecycle" in answer.text
    assert "SIGHUP" in answer.text
    assert reloads == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_reads_the_configuration_where_enabled(method: str) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        answer = site.client.request(method, "/-/reload")

    assert (answer.status_code, reloads) == (200, [1])


def test_the_reason_for_a_refused_configuration_is_in_the_answer() -> None:
    def refuse() -> None:
        raise ReloadFailed("max_beams: must be at least 1\nweb.listen_addres: unknown key")

    with recorded_logs() as lines, serve(reload=refuse, enable_lifecycle=True) as site:
        answer = site.client.post("/-/reload")

    assert answer.status_code == 500
    assert "max_beams: must be at least 1\nweb.listen_addres: unknown key" in answer.text
    assert (site.errors, lines) == ([], [])


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "what will be"},
        {"sec-fetch-site": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://exporter.example:10813.evil.example"},
        {"origin": "http://exporter.example:3000"},
        {"origin": "http://exporter.example"},
        {"origin": "https://exporter.example:10813"},
        {"origin": "HTTPS://exporter.example:10813", "sec-fetch-site": "none"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://exporter.example:10813", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    ],
    ids=str,
)
def test_a_page_of_another_site_reloads_nothing(headers: dict[str, str]) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        answers = [
            site.client.request(method, "/-/reload", headers={"host": "exporter.example:10813", **headers})
            for method in ("POST", "PUT")
        ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert {answer.text for answer in answers} == {
        "A page of another site asked for this. Reload with curl, or send the exporter SIGHUP.\n"
    }
    assert reloads == []


def test_a_second_header_does_not_hide_another_site() -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        ours = f"http://{site.server.address}"
        for name, good, bad in (("origin", ours, "http://evil.example"), ("sec-fetch-site", "none", "cross-site")):
            for said in ([(name, good), (name, bad)], [(name, bad), (name, good)]):
                assert site.client.post("/-/reload", headers=said).status_code == 403

    assert reloads == []


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "http://exporter.example:10813"},
        {"origin": "HTTPS://Exporter.example:10813", "sec-fetch-site": "same-origin"},
        {"referer": "http://evil.example/", "user-agent": "curl/8.0"},
    ],
    ids=str,
)
def test_own_page_and_other_programs_may_reload(headers: dict[str, str]) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        answer = site.client.post("/-/reload", headers={"host": "exporter.example:10813", **headers})

    assert (answer.status_code, reloads) == (200, [1])


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/api/v1/beams", "/static/page.js", "/nothing"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:10813", "mqi.hospital.example.evil.example", "localhost.evil.example", "0x7f.1"],
)
def test_a_request_for_a_foreign_host_name_is_refused(path: str, host: str) -> None:
    with serve(allowed_hosts=("mqi.hospital.example",)) as site:
        answer = site.client.get(path, headers={"host": host})
    assert answer.status_code == 421
    assert answer.text.startswith("This exporter does not answer to the name that was asked for.")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        *("mqi.hospital.example", "MQI.Hospital.Example:10813", "mqi.hospital.example."),
        *("127.0.0.1:10813", "10.1.2.3", "[::1]:10813", "[fe80::1%25eth0]:1", "localhost:10813"),
    ],
)
def test_the_servers_own_names_and_addresses_are_answered(host: str) -> None:
    with serve(allowed_hosts=("mqi.hospital.example",)) as site:
        assert site.client.get("/-/healthy", headers={"host": host}).status_code == 200


def test_every_host_name_is_answered_where_none_is_configured() -> None:
    with serve() as site:
        assert site.client.get("/-/healthy", headers={"host": "evil.example"}).status_code == 200


def test_the_web_configuration_is_reloaded_after_any_error(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.touch(mode=0o600)
    good = bcrypt.hashpw(b"secret", bcrypt.gensalt(10)).decode()
    path.write_text(f"basic_auth_users: {{leaves: '{good}', stays: '{good}'}}\n", encoding="utf-8")
    web_config = ActiveWebConfig(path)
    refresh, raised = web_config.refresh, list[int]()

    def fails_once() -> bool:
        if not raised:
            raised.append(1)
            raise RuntimeError
        return refresh()

    web_config.refresh = fails_once  # type: ignore[method-assign]
    with serve(web_config=web_config) as site:

        def status(user: str) -> int:
            return site.client.get("/-/healthy", auth=(user, "secret")).status_code

        assert status("leaves") == 200
        path.write_text('tls_server_config: {cert_file: "\\uD800", key_file: x}\n', encoding="utf-8")
        wait_for(lambda: web_config.up_to_date is False, "the refusal")
        path.write_text(f"basic_auth_users: {{stays: '{good}'}}\n", encoding="utf-8")
        wait_for(lambda: status("leaves") == 401, "the revoked user's end")
        assert raised
        assert (status("stays"), web_config.up_to_date) == (200, True)


def test_reload_by_get_is_not_allowed() -> None:
    with serve(enable_lifecycle=True) as site:
        answer = site.get("/-/reload")

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"POST", "PUT"}


def test_an_unexpected_error_is_one_500_one_log_line_and_one_count() -> None:
    def fail() -> None:
        raise KeyError("secret")

    with recorded_logs() as lines, serve(reload=fail, enable_lifecycle=True) as site:
        answer = site.client.post("/-/reload")

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert site.errors == ["web"]
    assert [(line["event"], line["path"]) for line in lines] == [("cannot answer a request", "/-/reload")]


def test_every_link_of_the_page_works(site: Site) -> None:
    page = site.get("/")
    links = re.findall(r'href="([^"#]+)"', page.text)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "1.2.3" in page.text
    assert "metrics" in links
    assert {site.get(f"/{link}").status_code for link in links} == {200}


def test_the_page_escapes_what_it_shows() -> None:
    with serve(version="<script>") as site:
        assert "&lt;script&gt;" in site.get("/").text


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/-/", "/metrics/../etc/passwd"])
def test_an_unknown_path_is_404(site: Site, path: str) -> None:
    with closing(site.connect()) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert _end(connection).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
def test_post_to_a_read_only_path_is_405(site: Site, path: str) -> None:
    answer = site.client.post(path)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", "/-/reload", "/nothing"])
def test_every_answer_forbids_sniffing_and_does_not_name_the_server(site: Site, path: str) -> None:
    answer = site.get(path)

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


# connections


def test_accepted_connections_send_without_delay(site: Site) -> None:
    with closing(site.connect()) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1)
        with _accepted(client.getsockname()) as accepted:
            assert accepted is not None
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_request_is_closed_in_time(said: bytes) -> None:
    with serve(idle_seconds=1) as site, closing(site.connect()) as connection:
        connection.sendall(said)

        assert _end(connection) == b""


def test_a_connection_with_half_a_further_request_is_closed_in_time() -> None:
    with serve(idle_seconds=1) as site, closing(site.connect()) as connection:
        connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\nGET /-/hea")

        assert _end(connection).count(b"HTTP/1.1 200 ") == 1


def test_an_answer_that_takes_longer_than_a_connection_may_idle_is_not_cut() -> None:
    begun, released = threading.Event(), threading.Event()

    def collect() -> Iterable[Metric]:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return []

    with serve(FunctionCollector(collect), idle_seconds=1) as site:
        scrape, answers = _in_thread(
            lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS)
        )
        assert begun.wait(PATIENCE_SECONDS)
        with closing(site.connect()) as silent:
            _end(silent)  # opened after the scrape had begun: by its end the scrape's time would be over, too
        released.set()
        scrape.join(PATIENCE_SECONDS)

    assert answers[0].status_code == 200


def test_silent_connections_are_closed_to_make_room_for_a_request(site: Site) -> None:
    assert site.get("/-/healthy").status_code == 200  # and the client keeps its connection
    with ExitStack() as connections:
        silent = [connections.enter_context(closing(site.connect())) for _ in range(CONNECTIONS_OF_ONE_ADDRESS + 20)]
        assert httpx.get(f"http://{site.server.address}/-/healthy").status_code == 200
        assert _end(silent[0]) == b"", "who came first and said nothing goes first"
        assert site.get("/-/healthy").status_code == 200


def test_silent_connections_of_many_addresses_are_closed_to_make_room_for_a_request(site: Site) -> None:
    assert site.get("/-/healthy").status_code == 200
    address = parse_listen_address(site.server.address)
    with ExitStack() as connections:
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            for _ in range(CONNECTIONS_OF_ONE_ADDRESS):
                silent = socket.create_connection(address, PATIENCE_SECONDS, (host, 0))
                connections.enter_context(closing(silent))
        assert 3 * CONNECTIONS_OF_ONE_ADDRESS > CONNECTIONS_AT_MOST
        assert httpx.get(f"http://{site.server.address}/-/healthy").status_code == 200
        assert site.get("/-/healthy").status_code == 200


def test_an_address_whose_connections_are_all_busy_gets_no_more_and_others_do() -> None:
    released = threading.Event()

    def collect() -> Iterable[Metric]:
        assert released.wait(PATIENCE_SECONDS)
        return []

    with recorded_logs() as lines, serve(FunctionCollector(collect)) as site, ExitStack() as connections:
        address = parse_listen_address(site.server.address)

        def connect() -> socket.socket:
            connection = socket.create_connection(address, PATIENCE_SECONDS, ("127.0.0.2", 0))
            return connections.enter_context(closing(connection))

        busy: list[socket.socket] = []

        def one_more_is_refused() -> bool:
            connection = connect()
            connection.settimeout(0.05 if len(busy) < CONNECTIONS_OF_ONE_ADDRESS else 1.0)
            try:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return connection.recv(1) == b""
            except TimeoutError:
                busy.append(connection)
                return False
            except ConnectionError:
                return True

        _wait_until(one_more_is_refused)
        assert len(busy) == CONNECTIONS_OF_ONE_ADDRESS
        assert site.get("/-/healthy").status_code == 200
        released.set()
        for connection in busy:
            connection.settimeout(PATIENCE_SECONDS)
            assert _end(connection).startswith(b"HTTP/1.1 200 ")

    assert "too many connections under way, one more is refused" in {line["event"] for line in lines}


def test_scrapes_that_wait_share_one_rendering() -> None:
    begun, released, rendered = threading.Event(), threading.Event(), list[int]()

    def collect() -> Iterable[Metric]:
        rendered.append(1)
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return [GaugeMetricFamily("mqi_x", "X.", value=len(rendered))]

    with serve(FunctionCollector(collect)) as site:
        url = f"http://{site.server.address}/metrics"
        first, _ = _in_thread(lambda: httpx.get(url, timeout=PATIENCE_SECONDS).text)
        assert begun.wait(PATIENCE_SECONDS)
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with ExitStack() as connections:
            waiting = [connections.enter_context(closing(site.connect())) for _ in range(20)]
            for connection in waiting:
                connection.sendall(asked)
            # What is asked later is answered later: when this is answered, the scrapes have been heard.
            assert site.get("/-/healthy").status_code == 200
            released.set()
            answers = [_end(connection) for connection in waiting]
        first.join(PATIENCE_SECONDS)

    assert all(b"mqi_x 2.0" in answer or b"mqi_x 3.0" in answer for answer in answers), "none from before its question"
    assert len(rendered) <= 3


def test_a_head_sent_byte_by_byte_ends_the_connection_in_time() -> None:
    with serve(idle_seconds=1) as site, closing(site.connect()) as slow:
        slow.settimeout(0.1)
        ended = False
        deadline = time.monotonic() + PATIENCE_SECONDS
        head = itertools.chain(b"GET / HTTP/1.1\r\nX: ", itertools.repeat(ord("x")))
        while not ended and time.monotonic() < deadline:
            try:
                slow.sendall(bytes([next(head)]))
                ended = slow.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True

    assert ended


def test_a_request_head_without_end_is_refused(site: Site) -> None:
    with closing(site.connect()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)

        assert connection.recv(12) == b"HTTP/1.1 400"


def head_of(size_bytes: int, header: str = "X-A: ") -> bytes:
    """A request whose head is so long, with all of it in one header."""
    begin, end = f"GET /-/healthy HTTP/1.1\r\nHost: x\r\n{header}", "a\r\n\r\n"
    filler = header[-1] if header.endswith("  ") else "a"
    return (begin + filler * (size_bytes - len(begin) - len(end)) + end).encode()


def test_a_request_head_of_the_greatest_size_is_answered(site: Site) -> None:
    with closing(site.connect()) as connection, connection.makefile("rb") as answers:
        for _ in range(3):
            connection.sendall(head_of(16 * 1024))
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while answers.readline() != b"healthy\n":
                pass


@pytest.mark.parametrize("size_bytes", [16 * 1024 + 1, 17_000, 60_000])
@pytest.mark.parametrize("header", ["X-A: ", "X-A:  "], ids=["text", "blanks"])
@pytest.mark.parametrize("before", [b"", head_of(100)], ids=["first", "behind another"])
def test_a_request_head_beyond_the_bound_that_comes_at_once_is_refused(
    site: Site, size_bytes: int, header: str, before: bytes
) -> None:
    with closing(site.connect()) as connection:
        connection.sendall(before + head_of(size_bytes, header) + head_of(100))
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while some := connection.recv(65536):
                said += some

    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == ([b"200", b"400"] if before else [b"400"])


def test_many_small_requests_sent_at_once_are_all_answered(site: Site) -> None:
    count = 400
    with closing(site.connect()) as connection:
        connection.sendall(head_of(100) * count)
        said = b""
        while said.count(b"healthy\n") < count and (some := connection.recv(65536)):
            said += some

    assert said.count(b"HTTP/1.1 200") == said.count(b"healthy\n") == count


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bytes_after_a_last_request_are_ignored_and_its_answer_is_complete(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun, released = threading.Event(), threading.Event()

    def ready() -> None:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)

    with serve(ready=ready) as site, closing(site.connect()) as connection:
        connection.sendall(f"{method} /-/ready HTTP/1.0\r\n\r\n".encode())
        assert begun.wait(PATIENCE_SECONDS)
        connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        released.set()
        received = _end(connection)
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"ready\n" if method == "GET" else b"\r\n\r\n")
    assert site.errors == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_pipelined_requests_beyond_a_bound_are_not_read_until_they_are_answered() -> None:
    begun, released = threading.Event(), threading.Event()

    def ready() -> None:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)

    count = 0
    with serve(ready=ready) as site, closing(site.connect()) as connection:
        connection.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(PATIENCE_SECONDS)
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while count < 20_000:
                connection.sendall(head_of(4096))
                count += 1
        released.set()
        assert count < 20_000, "the server reads nothing more, so the client cannot send"


# start and stop


def stop_seconds(server: WebServer) -> float:
    """How long a server takes to stop, until its thread has ended: its own stop does not wait for that for ever."""

    def stop() -> None:
        server.stop()
        _wait_until(lambda: not server.alive)

    return seconds_of(stop)


def test_stop_ends_idle_silent_and_slow_clients_within_two_seconds(site: Site) -> None:
    assert site.get("/-/healthy").status_code == 200  # and the client keeps its connection
    with closing(site.connect()) as silent, closing(site.connect()) as half:
        half.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        assert site.get("/-/healthy").status_code == 200

        assert stop_seconds(site.server) < STOP_SECONDS
        assert _end(silent) == b""
        assert _end(half) == b""


def test_stop_ends_idle_silent_and_slow_tls_clients_within_two_seconds(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    web_yaml = tmp_path / "web.yaml"
    web_yaml.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n", encoding="utf-8")
    context = ssl.create_default_context(cafile=authority.file)
    with serve(web_config=ActiveWebConfig(web_yaml)) as site, closing(site.connect()) as silent, ExitStack() as stack:
        idle = stack.enter_context(httpx.Client(base_url=f"https://{site.server.address}", verify=context))
        assert idle.get("/-/healthy").status_code == 200
        half = stack.enter_context(closing(site.connect()))
        half.sendall(b"\x16\x03\x01")
        assert idle.get("/-/healthy").status_code == 200

        assert stop_seconds(site.server) < STOP_SECONDS
        assert _end(silent) == b""
        assert _end(half) == b""


def test_a_tls_client_that_does_not_end_tls_is_disconnected_in_time(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    web_yaml = tmp_path / "web.yaml"
    web_yaml.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n", encoding="utf-8")
    context = ssl.create_default_context(cafile=authority.file)
    with (
        serve(web_config=ActiveWebConfig(web_yaml), idle_seconds=1) as site,
        context.wrap_socket(site.connect(), server_hostname="127.0.0.1") as client,
    ):
        name = client.getsockname()
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        _wait_until(lambda: not _is_accepted(name))


def test_stop_ends_a_client_that_does_not_read_its_answer_within_two_seconds() -> None:
    endless = Metric("mqi_x", "x" * 64_000_000, "gauge")
    rendered = threading.Event()

    def collect() -> Iterable[Metric]:
        yield endless
        rendered.set()

    with serve(FunctionCollector(collect)) as site, closing(site.connect()) as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 200"

        assert stop_seconds(site.server) < STOP_SECONDS


def test_stop_lets_an_answer_under_way_finish() -> None:
    begun, released = threading.Event(), threading.Event()

    def collect() -> Iterable[Metric]:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return []

    with serve(FunctionCollector(collect)) as site:
        scrape, answers = _in_thread(
            lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS)
        )
        assert begun.wait(PATIENCE_SECONDS)
        stop, _ = _in_thread(site.server.stop)
        _wait_until(lambda: not _accepts(site.server))
        released.set()
        stop.join(PATIENCE_SECONDS)
        scrape.join(PATIENCE_SECONDS)

    assert answers[0].status_code == 200


def _accepts(server: WebServer) -> bool:
    try:
        socket.create_connection(parse_listen_address(server.address), timeout=PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def test_stop_does_not_wait_for_an_answer_that_hangs() -> None:
    begun, released = threading.Event(), threading.Event()

    def collect() -> Iterable[Metric]:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return []

    with serve(FunctionCollector(collect)) as site, closing(site.connect()) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(PATIENCE_SECONDS)
        try:
            assert seconds_of(site.server.stop) < STOP_SECONDS + 1
            assert not _accepts(site.server)
        finally:
            released.set()


def test_an_idle_server_does_not_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float | None] = []
    select = selectors.DefaultSelector.select

    def recorded(self: selectors.BaseSelector, timeout: float | None = None) -> Any:
        if threading.current_thread().name == "web":
            timeouts.append(timeout)
        return select(self, timeout)  # type: ignore[arg-type]

    monkeypatch.setattr(selectors.DefaultSelector, "select", recorded)
    with serve():
        _wait_until(lambda: timeouts[-1:] == [None])


def test_every_answer_is_dated(site: Site) -> None:
    for path in ("/", "/metrics", "/nothing"):
        dated = parsedate_to_datetime(site.get(path).headers["date"])
        assert abs(dated.timestamp() - time.time()) < PATIENCE_SECONDS


def test_after_a_stop_the_port_is_free_and_stop_may_come_again(site: Site) -> None:
    site.get("/-/healthy")
    site.server.stop()
    site.server.stop()

    follower = WebServer(_never_called, site.server.address)
    follower.stop()


def test_a_server_that_never_started_gives_its_port_back() -> None:
    server = WebServer(_never_called, "127.0.0.1:0")
    server.stop()

    assert not server.alive
    WebServer(_never_called, server.address).stop()


def test_a_taken_port_is_refused_when_the_server_is_made(site: Site) -> None:
    with pytest.raises(ListenError, match="Address already in use"):
        WebServer(_never_called, site.server.address)


async def _never_called(*_: object) -> None:
    raise AssertionError("nobody asked anything")
