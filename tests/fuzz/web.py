"""Whatever a client says: an answer of HTTP or a closed connection, no error of ours, and the next scrape as before."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator, MutableMapping, MutableSequence, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

from tests.fuzz.target import Check, Target, draw
from tests.support.logs import recorded_logs
from tests.web.site import Site, serve

_ANSWER = re.compile(rb"HTTP/1\.1 [1-5]\d\d [ -~]*\r\n")
_SERVER_ERROR = re.compile(rb"HTTP/1\.1 500 ")
_LONGEST_ANSWER = 8 << 20
_SCRAPE_EVERY = 16


@contextmanager
def _opened() -> Iterator[Check]:
    with recorded_logs() as said, serve(enable_lifecycle=True) as site:
        libraries = _Libraries(said)
        logging.getLogger().addHandler(libraries)
        try:
            yield partial(_check, site, said)
        finally:
            logging.getLogger().removeHandler(libraries)


class _Libraries(logging.Handler):
    """Adds to ``said`` the errors that asyncio and other libraries log."""

    def __init__(self, said: MutableSequence[MutableMapping[str, Any]]) -> None:
        super().__init__(logging.ERROR)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append({"event": record.getMessage(), "logger": record.name})


def _check(site: Site, said: Sequence[object], data: bytes) -> None:
    with closing(site.connect()) as connection:
        try:
            # In one piece or in two: what is read at once is the server's own affair.
            cut = draw(data, 1 + len(data))
            connection.sendall(data[:cut])
            connection.sendall(data[cut:])
            with suppress(OSError):  # it is closed already, and there may be an answer all the same
                connection.shutdown(socket.SHUT_WR)
            answer = _read(connection)
        except ConnectionError:
            answer = b""  # it was closed in the middle of what we said
    assert not answer or _ANSWER.match(answer), answer[:200]
    assert not _SERVER_ERROR.match(answer), answer[:200]
    assert not site.errors
    assert not said, said
    if draw(data, _SCRAPE_EVERY) == 0:
        assert site.get("/metrics").status_code == 200


def _read(connection: socket.socket) -> bytes:
    parts: list[bytes] = []
    while part := connection.recv(1 << 16):
        parts.append(part)
        assert sum(map(len, parts)) < _LONGEST_ANSWER, "an answer without end"
    return b"".join(parts)


_PATHS = (
    *("/metrics", "/", "/table", "/-/healthy", "/-/ready", "/-/reload", "/api/v1/beams", "/api/v1/beams/case/failed"),
    *("/api/v1/cases?state=failed", "/api/v1/sources", "/api/v1/openapi.json", "/runbooks/", "/static/page.js", "/x"),
)


def _seeds() -> Iterator[bytes]:
    for path in _PATHS:
        yield f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    yield b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    yield b"HEAD /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\nAccept: application/openmetrics-text\r\n\r\n"
    yield b"GET /api/v1/beams HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"


TARGET = Target(
    _opened,
    _seeds,
    words=(
        *(path.encode() for path in _PATHS),
        *(
            b"GET ",
            b"POST ",
            b"HEAD ",
            b"OPTIONS * ",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b" HTTP/2.0\r\n",
            b"\r\n\r\n",
        ),
        *(
            b"Host: x\r\n",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"5\r\nhello\r\n",
        ),
        *(
            b"Upgrade: websocket\r\n",
            b"Expect: 100-continue\r\n",
            b"Accept-Encoding: gzip;q=0,*\r\n",
            b"Range: bytes=0-\r\n",
        ),
        *(
            b"Authorization: Basic ",
            b'If-None-Match: "',
            b"%00",
            b"%2e%2e/",
            b"?since=",
            b"\x00",
            b"\xff",
            b"0\r\n\r\n",
        ),
    ),
    longest_bytes=2000,
    examples=40,
)
