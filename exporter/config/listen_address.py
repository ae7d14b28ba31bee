"""The address that the web server listens on, and its socket."""

from __future__ import annotations

import errno
import re
import socket

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:\[\]/]*)):([0-9]{1,5})")
_BACKLOG = 1024
"""Length of the queue of new connections, so that a scraper finds room beside a flood; the system may allow fewer."""
_REMEDIES = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another port",
    errno.EACCES: "ports below 1024 need a privilege; choose a higher port",
    errno.EADDRNOTAVAIL: "this host has no such address; use one of its own, or :PORT for all of them",
    errno.EAFNOSUPPORT: "this host has no such kind of address; use 127.0.0.1",
}
_REMEDY = "choose another address"


class ListenError(Exception):
    """The server cannot listen on an address. The message says why and what to do."""


def parse_listen_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, ``[ipv6]:port`` or ``:port`` (every interface).

    Raises:
        ListenError: it is not an address, or the port is above 65535.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65535:
        raise ListenError(f"cannot listen on {text!r}: it is not an address; write host:port, [ipv6]:port or :port")
    return found[1] or found[2] or "0.0.0.0", int(found[3])


def open_listener(listen_address: str) -> socket.socket:
    """Return a listening socket. A port that is in use fails here, and not later in the server's thread.

    Args:
        listen_address: ``127.0.0.1:10813``, ``:10813``, ``[::1]:10813``, ``localhost:10813``; port 0 takes a free port.

    Raises:
        ListenError: the address is malformed, unknown, in use or not allowed.
    """
    host, port = parse_listen_address(listen_address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        remedy = "the name is not known here; correct it, or write the address itself"
        raise ListenError(f"cannot listen on {listen_address}: {_cause(error)}; {remedy}") from error
    # IPv4 first: `localhost` may be both, and scrapers mostly use 127.0.0.1.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    # asyncio sets TCP_NODELAY only if the protocol is given. Without it every scrape on a kept connection waits 40 ms
    # for the client's delayed acknowledgement.
    listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # With SO_REUSEADDR two sockets can bind the same port; listen() detects it.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        remedy = _REMEDIES.get(error.errno or 0, _REMEDY)
        raise ListenError(f"cannot listen on {listen_address}: {_cause(error)}; {remedy}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket, as ``host:port`` or ``[ipv6]:port``."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cause(error: OSError | UnicodeError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
