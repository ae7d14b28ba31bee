"""What the web server relies on inside uvicorn and h11, which promise nothing about it.

``exporter/web/server.py`` and ``request_heads.py`` override methods and read attributes of both. Where one of them has
changed, read what it does now, see that bounds and refusals still hold (``tests/web``), write the new digest here, and
raise the upper bound in ``pyproject.toml``.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import h11
import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

RELIED_ON: dict[Any, str] = {
    H11Protocol.__init__: "ad1ed8e837b2db8d",
    H11Protocol.connection_made: "6efb565ff3d36b91",
    H11Protocol.connection_lost: "dbb688fa2b386000",
    H11Protocol._unset_keepalive_if_required: "00a6a4e47214e68e",
    H11Protocol.data_received: "e03b145518ca44aa",
    H11Protocol.handle_events: "e63a9d1492e3efe7",
    H11Protocol.send_400_response: "56937b748fc59d92",
    H11Protocol.on_response_complete: "1fbb8f48c6a1afc4",
    H11Protocol.shutdown: "aaa6d607648bad7d",
    H11Protocol.pause_writing: "17a8fd215d96a13c",
    H11Protocol.resume_writing: "7844bbaa8cceb1ef",
    H11Protocol.timeout_keep_alive_handler: "fcd7338529fe645e",
    RequestResponseCycle.run_asgi: "0f33f2449a444bc2",
    RequestResponseCycle.send: "76b4bcb0998bed0e",
    RequestResponseCycle.receive: "2d138e9944fff369",
    uvicorn.Server.run: "239e0133d4307e38",
    uvicorn.Server.serve: "112ef41af52167e3",
    uvicorn.Server._serve: "4575b7a50adfede8",
    uvicorn.Server.startup: "2aa1d70a244bfcf2",
    uvicorn.Server.main_loop: "afccb353a119333f",
    uvicorn.Server.on_tick: "60ea49b06ccf68c1",
    uvicorn.Server.shutdown: "9b33c50562992b1e",
    uvicorn.Server._wait_tasks_to_complete: "17209be1e991445d",
    h11.Connection.receive_data: "e0cf0ded695452eb",
    h11.Connection.next_event: "7d3288bcc261c49c",
    h11.Connection.send: "cd6b139277cf57fa",
    h11.Connection.start_next_cycle: "d4bd9b18262fe0b4",
}


def digest(relied_on: Any) -> str:
    """Of the source of a function, of all that it does."""
    return hashlib.sha256(inspect.getsource(relied_on).encode()).hexdigest()[:16]


@pytest.mark.parametrize("relied_on", RELIED_ON, ids=lambda each: each.__qualname__)
def test_what_is_relied_on_does_what_it_did_when_it_was_read(relied_on: Any) -> None:
    assert digest(relied_on) == RELIED_ON[relied_on]


@pytest.mark.parametrize("name", ["uvicorn", "h11"])
def test_a_release_that_nobody_has_read_is_not_taken(name: str) -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    [required] = re.findall(rf'^    "({name}\b[^"]*)",', text, re.MULTILINE)
    bounds = Requirement(required).specifier
    assert metadata.version(name) in bounds
    assert any(each.operator == "<" for each in bounds)
    major, minor = metadata.version(name).split(".")[:2]
    assert f"{major}.{int(minor) + 1}" not in bounds, "the next release"


def test_a_connections_attributes_are_where_they_are_looked_for() -> None:
    server, connection = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    server.receive_data(head + b"more")
    assert server.their_state is h11.IDLE
    assert server.trailing_data == (head + b"more", False)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert event.headers.raw_items() == [(b"Host", b"x")]
    assert server.trailing_data == (b"more", False)
    assert connection.our_role is h11.CLIENT
