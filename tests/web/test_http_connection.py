"""Slow, silent and pipelining clients over real connections."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import ssl
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from prometheus_client.core import Metric

from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.certificates import Authority
from tests.support.scheduling import seconds_of
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

ASYNCIO_SHUTDOWN_SECONDS = 30.0
"""When asyncio itself gives up on a TLS client that does not answer."""


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_request_is_closed_in_time(said: bytes) -> None:
    with serve(idle_seconds=1) as site, closing(site.connect()) as connection:
        connection.sendall(said)

        assert read_to_end(connection) == b""


def test_a_connection_with_half_a_further_request_is_closed_in_time() -> None:
    with serve(idle_seconds=1) as site, closing(site.connect()) as connection:
        connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\nGET /-/hea")

        assert read_to_end(connection).count(b"HTTP/1.1 200 ") == 1


def test_an_answer_that_takes_longer_than_a_connection_may_idle_is_not_cut() -> None:
    begun, released = threading.Event(), threading.Event()

    def collect() -> Iterable[Metric]:
        begun.set()
        assert released.wait(PATIENCE_SECONDS)
        return []

    with serve(FunctionCollector(collect), idle_seconds=1) as site:
        scrape, answers = in_thread(
            lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS)
        )
        assert begun.wait(PATIENCE_SECONDS)
        with closing(site.connect()) as silent:
            read_to_end(silent)  # opened after the scrape had begun: by its end the scrape's time would be over, too
        released.set()
        scrape.join(PATIENCE_SECONDS)

    assert answers[0].status_code == 200


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
        received = read_to_end(connection)
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
        assert seconds_of(lambda: wait_until(lambda: not is_accepted(name))) < ASYNCIO_SHUTDOWN_SECONDS / 2
