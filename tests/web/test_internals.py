"""What the web server expects of uvicorn's HTTP protocol, which uvicorn does not promise.

``exporter/web/server.py`` makes uvicorn's ``H11Protocol`` itself and gives it one whole request head after another;
``exporter/web/http_connection.py`` expects that the response is complete when the last ``send`` returns. Where a new
release breaks one of these tests, adapt these two modules. Then raise the upper bound in
``pyproject.toml``.
"""

from __future__ import annotations

import asyncio
import re
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import uvicorn
from packaging.requirements import Requirement
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_uvicorn_release_that_was_not_tested_is_not_installed() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    [required] = re.findall(r'^    "(uvicorn\b[^"]*)",', text, re.MULTILINE)
    bounds = Requirement(required).specifier
    assert metadata.version("uvicorn") in bounds
    major, minor = metadata.version("uvicorn").split(".")[:2]
    assert f"{major}.{int(minor) + 1}" not in bounds, "the next release"


class RecordingApp:
    """An application that gives one response after another, and records what it is called with."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, object]] = []
        self.protocol: H11Protocol | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append((scope["path"], scope["state"]["connection"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        if self.protocol is not None and len(self.requests) < 3:
            self.protocol.data_received(HEAD % len(self.requests))


def test_uvicorn_reads_the_next_request_once_the_last_send_of_a_response_has_returned() -> None:
    async def scene() -> tuple[RecordingApp, Any]:
        app, transport = RecordingApp(), Mock(spec=asyncio.Transport)
        transport.is_closing.return_value = False
        transport.get_extra_info.return_value = None
        config = uvicorn.Config(app, http=H11Protocol, lifespan="off", interface="asgi3", log_config=None)
        state = ServerState()
        app.protocol = H11Protocol(config, state, {"connection": "one"})
        app.protocol.connection_made(transport)
        app.protocol.data_received(HEAD % 0)
        while state.tasks:
            await asyncio.sleep(0)
        app.protocol.connection_lost(None)
        assert not state.connections
        return app, transport

    app, transport = asyncio.run(scene())
    assert app.requests == [("/0", "one"), ("/1", "one"), ("/2", "one")]
    assert b"".join(call.args[0] for call in transport.write.call_args_list).count(b"HTTP/1.1 200 OK\r\n") == 3
