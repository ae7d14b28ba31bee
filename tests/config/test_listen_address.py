"""Addresses to listen at, and the errors that tell a user what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from exporter.config.listen_address import ListenError, address_of, open_listener, parse_listen_address


@pytest.fixture
def taken() -> Iterator[str]:
    """An address where somebody listens already."""
    with closing(open_listener("127.0.0.1:0")) as listener:
        yield address_of(listener)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:10813", "127.0.0.1", 10813),
        (":10813", "0.0.0.0", 10813),
        ("[::1]:10813", "::1", 10813),
        ("[::]:0", "::", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_addresses_as_prometheus_writes_them(text: str, host: str, port: int) -> None:
    assert parse_listen_address(text) == (host, port)


@pytest.mark.parametrize("text", ["", "10813", "localhost", "host:port", "::1:10813", "a:65536", "a:-1", "http://a:1"])
def test_an_invalid_address_is_refused_with_valid_forms(text: str) -> None:
    with pytest.raises(ListenError, match=r"it is not an address; write host:port, \[ipv6\]:port or :port") as refused:
        open_listener(text)

    assert str(refused.value).startswith(f"cannot listen on {text!r}")


@pytest.mark.parametrize(
    ("address", "client_host"), [("127.0.0.1:0", "127.0.0.1"), ("localhost:0", "127.0.0.1"), (":0", "127.0.0.1")]
)
def test_it_can_be_reached_as_soon_as_it_is_open(address: str, client_host: str) -> None:
    with closing(open_listener(address)) as listener:
        port = int(address_of(listener).rpartition(":")[2])
        assert port > 0
        with socket.create_connection((client_host, port), timeout=10):
            listener.accept()[0].close()


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    with closing(open_listener("[::1]:0")) as listener:
        assert address_of(listener) == f"[::1]:{listener.getsockname()[1]}"


def test_a_port_in_use_is_reported_before_anything_is_served(taken: str) -> None:
    with pytest.raises(ListenError) as refused:
        open_listener(taken)

    assert str(refused.value) == (
        f"cannot listen on {taken}: Address already in use; another program listens there; stop it, "
        "or choose another port"
    )


def test_a_port_is_free_again_at_once_after_its_connections_ended() -> None:
    with closing(open_listener("127.0.0.1:0")) as listener:
        address = address_of(listener)
        with socket.create_connection(listener.getsockname(), timeout=10):
            listener.accept()[0].close()  # closed by this side first: it stays in TIME_WAIT

    open_listener(address).close()


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0: .*; this host has no such address"):
        open_listener("192.0.2.1:0")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid"])
def test_a_name_that_is_not_known_is_refused(host: str) -> None:
    with pytest.raises(ListenError, match=rf"cannot listen on {host}:0: .*; the name is not known here"):
        open_listener(f"{host}:0")
