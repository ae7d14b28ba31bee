"""Request heads over real sockets: refused requests, forms of targets, OPTIONS, and plain HTTP to the TLS port."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter.config.listen_address import parse_listen_address
from tests.support import secured
from tests.support.certificates import Authority
from tests.support.process import PATIENCE_SECONDS, ExporterProcess, wait_for
from tests.web.site import serve

SMUGGLED = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve(enable_lifecycle=True) as site:
        yield site.server.address


def connected(address: str) -> socket.socket:
    return socket.create_connection(parse_listen_address(address), PATIENCE_SECONDS)


def said(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def answer(address: str, request: str) -> bytes:
    """What the server says to a request, and to another that follows at once, until it closes."""
    with closing(connected(address)) as connection:
        connection.sendall(request.encode("latin-1"))
        return said(connection)


def one(address: str, line: str, headers: str = "Host: x\r\n") -> bytes:
    return answer(address, f"{line}\r\n{headers}Connection: close\r\n\r\n")


# Bodies and framing


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        ("Content-Length: 5", 413),
        ("Content-Length: 00005", 413),
        ("content-length:5", 413),
        ("Content-Length: 99999999999999999999", 413),
        ("Transfer-Encoding: chunked", 413),
        ("transfer-encoding:chunked", 413),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 413),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", 413),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 0, 0", 400),
        ("Content-Length: 0\r\nContent-Length: 0", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: +5", 400),
        ("Content-Length:", 400),
        ("X: a\r\n folded: yes", 400),
        ("X: a\r\n\tfolded", 400),
        ("X: a\nContent-Length: 5", 400),
        ("X: a\nY: b", 400),
        ("X: a\rY: b", 400),
        ("Transfer-Encoding : chunked", 400),
    ],
)
@pytest.mark.parametrize("line", ["POST /-/reload HTTP/1.1", "GET /metrics HTTP/1.1", "PUT /-/reload HTTP/1.0"])
def test_a_request_with_a_body_or_an_unclear_end_is_refused_and_its_connection_closed(
    address: str, line: str, framing: str, status: int
) -> None:
    received = answer(address, f"{line}\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n{SMUGGLED}")
    assert received.startswith(b"HTTP/1.1 %d " % status), received
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in received.lower()
    assert b"openapi" not in received


@pytest.mark.parametrize("head", ["GET /metrics HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.1\r\nHost: x\r\n\n"])
def test_lines_without_a_carriage_return_are_refused(address: str, head: str) -> None:
    received = answer(address, head + SMUGGLED)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("framing", ["Content-Length: 0", "content-length:000", ""])
def test_a_request_without_a_body_is_followed_by_another(address: str, framing: str) -> None:
    head = (
        f"POST /-/reload HTTP/1.1\r\nHost: x\r\n{framing}\r\n" if framing else "GET /-/healthy HTTP/1.1\r\nHost: x\r\n"
    )
    received = answer(address, f"{head}\r\n{SMUGGLED}GET / HTTP/1.0\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 ") == 3


def test_a_head_request_with_a_body_is_refused_without_one(address: str) -> None:
    received = answer(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert received.endswith(b"\r\n\r\n")


def test_a_body_after_an_answered_request_is_refused_too(address: str) -> None:
    chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    received = answer(address, SMUGGLED + chunked)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", received) == [b"200", b"413"]


def test_a_refused_request_is_not_read_further(address: str) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")

        def refused() -> bool:
            try:
                connection.sendall(b"1\r\nx\r\n" * 1000)
            except OSError:
                return True
            return False

        wait_for(refused, "the end of the connection")


# Targets and methods


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost:10813/metrics", 200),
        ("HTTP://Localhost/metrics?name[]=mqi_beams", 200),
        ("https://mqi.hospital.example/-/healthy", 200),
        ("http://x", 200),
        ("http://[::1]:10813/-/ready", 200),
        ("http://x?y=1", 200),
        ("http://x/nothing", 404),
        ("http://x//metrics", 404),
        ("ftp://x/metrics", 404),
        ("http:///metrics", 404),
        ("http://user@x/metrics", 404),
    ],
)
def test_absolute_form_targets_are_accepted(address: str, target: str, status: int) -> None:
    assert one(address, f"GET {target} HTTP/1.1").startswith(b"HTTP/1.1 %d " % status)


def test_the_host_of_an_absolute_form_target_overrides_the_header(address: str) -> None:
    """RFC 9112, 3.2.2: a page of another site must not pass for ours by the header."""
    of_ours = "Host: x\r\nOrigin: http://x\r\n"
    assert one(address, "POST /-/reload HTTP/1.1", of_ours).startswith(b"HTTP/1.1 200 ")
    assert one(address, "POST http://x/-/reload HTTP/1.1", of_ours).startswith(b"HTTP/1.1 200 ")
    assert one(address, "POST http://other/-/reload HTTP/1.1", of_ours).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("target", "methods"),
    [
        ("*", b"GET, HEAD, OPTIONS, POST, PUT"),
        ("/", b"GET, HEAD, OPTIONS"),
        ("/metrics", b"GET, HEAD, OPTIONS"),
        ("/-/reload", b"OPTIONS, POST, PUT"),
        ("/api/v1/beams/a/b", b"GET, HEAD, OPTIONS"),
        ("http://x", b"GET, HEAD, OPTIONS, POST, PUT"),
        ("http://x/metrics", b"GET, HEAD, OPTIONS"),
    ],
)
def test_options_lists_the_allowed_methods(address: str, target: str, methods: bytes) -> None:
    received = one(address, f"OPTIONS {target} HTTP/1.1")
    assert received.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: " + methods + b"\r\n" in received
    assert received.endswith(b"\r\n\r\n")
    assert b"access-control" not in received.lower()


def test_options_of_an_unknown_path_is_404(address: str) -> None:
    assert one(address, "OPTIONS /nothing HTTP/1.1").startswith(b"HTTP/1.1 404 ")


def test_a_forbidden_method_gets_405_with_the_allowed_ones(address: str) -> None:
    received = one(address, "DELETE /metrics HTTP/1.1")
    assert received.startswith(b"HTTP/1.1 405 ")
    assert {each.strip() for each in received.lower().split(b"\r\nallow:")[1].split(b"\r\n")[0].split(b",")} == {
        b"get",
        b"head",
    }


# Plain HTTP to the TLS port


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ExporterProcess, Authority]]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("server")
    users = {"basic_auth_users": {"operator": secured.HASH}}
    with secured.exporter(folder, {"tls_server_config": secured.TLS, **users}) as running:
        yield running, authority


def healthy(running: ExporterProcess, authority: Authority) -> bool:
    """Whether TLS is spoken as before."""
    context = ssl.create_default_context(cafile=authority.file)
    with connected(running.address) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
        tls.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return said(tls).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n" + b"x" * 4000,
        b"G",
        b"get / http/1.0\r\n\r\n",
    ],
)
def test_plain_http_to_the_tls_port_is_told_to_use_https(
    over_tls: tuple[ExporterProcess, Authority], request_bytes: bytes
) -> None:
    with closing(connected(over_tls[0].address)) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        received = said(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert body == b"This port speaks HTTPS: use https:// instead of http://\n"
    assert healthy(*over_tls)


def test_a_client_that_sends_plain_http_to_the_tls_port_for_ever_is_disconnected(
    over_tls: tuple[ExporterProcess, Authority],
) -> None:
    began = time.monotonic()
    with closing(connected(over_tls[0].address)) as connection:

        def refused() -> bool:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\n" * 100)
            except OSError:
                return True
            return False

        wait_for(refused, "the end of the connection")
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert healthy(*over_tls)


@pytest.mark.parametrize("first", [b"\x16\x03\x01garbage", b"\x00", b"\x80\x2e\x01", b"\xff" * 500])
def test_bytes_that_are_neither_http_nor_tls_get_no_plain_answer(
    over_tls: tuple[ExporterProcess, Authority], first: bytes
) -> None:
    with closing(connected(over_tls[0].address)) as connection:
        connection.sendall(first)
        connection.shutdown(socket.SHUT_WR)
        assert b"HTTP" not in said(connection)
    assert healthy(*over_tls)


def test_a_client_that_sends_nothing_to_the_tls_port_is_disconnected_in_time(
    over_tls: tuple[ExporterProcess, Authority],
) -> None:
    with closing(connected(over_tls[0].address)) as connection:
        connection.settimeout(2 * PATIENCE_SECONDS)
        assert said(connection) == b""


def test_a_body_over_tls_ends_the_connection(over_tls: tuple[ExporterProcess, Authority], tmp_path: Path) -> None:
    running, authority = over_tls
    context = ssl.create_default_context(cafile=authority.file)
    with connected(running.address) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
        tls.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 413 ")

        def refused() -> bool:
            try:
                tls.sendall(b"1\r\nx\r\n" * 1000)
            except OSError:
                return True
            return False

        wait_for(refused, "the end of the connection")
    assert healthy(running, authority)
