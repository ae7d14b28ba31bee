"""Starting and stopping the server, and reloading its web configuration."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from prometheus_client.core import Metric

from exporter.config.listen_address import ListenError, parse_listen_address
from exporter.web.server import WebServer
from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.certificates import Authority
from tests.support.process import wait_for
from tests.support.scheduling import seconds_of
from tests.web.site import (
    PATIENCE_SECONDS,
    STOP_SECONDS,
    FunctionCollector,
    Site,
    in_thread,
    read_to_end,
    serve,
    stop_seconds,
    wait_until,
)


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


def test_stop_ends_idle_silent_and_slow_clients_within_two_seconds(site: Site) -> None:
    assert site.get("/-/healthy").status_code == 200  # and the client keeps its connection
    with closing(site.connect()) as silent, closing(site.connect()) as half:
        half.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        assert site.get("/-/healthy").status_code == 200

        assert stop_seconds(site.server) < STOP_SECONDS
        assert read_to_end(silent) == b""
        assert read_to_end(half) == b""


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
        assert read_to_end(silent) == b""
        assert read_to_end(half) == b""


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
        scrape, answers = in_thread(
            lambda: httpx.get(f"http://{site.server.address}/metrics", timeout=PATIENCE_SECONDS)
        )
        assert begun.wait(PATIENCE_SECONDS)
        stop, _ = in_thread(site.server.stop)
        wait_until(lambda: not _accepts(site.server))
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
        wait_until(lambda: timeouts[-1:] == [None])


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
