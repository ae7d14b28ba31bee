"""Request heads: cut from the received bytes and checked before uvicorn and h11 see them.

No route takes a body. So requests are heads that follow one another, each ended by an empty line, and where one ends is
decided here alone. A head that a proxy in front could read in another way is refused, since the proxy would then see
other requests than this server.
"""

from __future__ import annotations

import re

HEAD_BYTES_AT_MOST = 16 * 1024

_END = b"\r\n\r\n"
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([^\r\n]*?)[ \t]*\r", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
_HOST = re.compile(rb"\nhost:[^\n]*", re.IGNORECASE)
_ABSOLUTE_FORM = re.compile(rb"(\S+) https?://([^/?#@\s]+)(/[^?#\s]*)?(\?\S*)? ", re.IGNORECASE)


class RequestRefused(Exception):
    """The request is answered with an error, and its connection closed.

    Args:
        status: of the answer.
        text: one line for people.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def next_head(received: bytearray) -> bytes | None:
    """Remove the first complete request head from the received bytes.

    Args:
        received: at least one byte.

    Returns:
        The head with the empty line that ends it; ``None`` while it is incomplete.

    Raises:
        RequestRefused: the head must not be answered. The bytes stay in ``received``.
    """
    if received[0] <= 0x20:  # a TLS handshake, for instance
        raise RequestRefused(400, "This is not an HTTP request.")
    end = received.find(_END, 0, HEAD_BYTES_AT_MOST)
    head = bytes(received[: HEAD_BYTES_AT_MOST if end < 0 else end + len(_END)])
    if _BARE_LINE_FEED.search(head):
        raise RequestRefused(400, "A line of the request's head ends without a carriage return.")
    if end >= 0:
        _check(head)
        del received[: len(head)]
        return _in_origin_form(head)
    if len(received) >= HEAD_BYTES_AT_MOST:
        raise RequestRefused(400, "The head of the request is too large.")
    return None


def _check(head: bytes) -> None:
    if _FOLDED.search(head):
        raise RequestRefused(400, "A header of the request continues on a second line.")
    lengths = _LENGTH.findall(head)
    if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
        raise RequestRefused(400, "The request has several lengths.")
    if _TRANSFER_ENCODING.search(head) or (lengths and lengths[0].strip(b"0")):
        raise RequestRefused(413, "Requests must not have a body.")


def _in_origin_form(head: bytes) -> bytes:
    """Turn ``GET http://host/path`` into ``GET /path`` with that host: RFC 9112 ranks it above the header ``Host``."""
    found = _ABSOLUTE_FORM.match(head)
    if found is None or len(_HOST.findall(head)) != 1:  # uvicorn refuses several hosts, or none
        return head
    method, authority, path, query = found.groups(b"")
    if not path:
        path = b"*" if method == b"OPTIONS" and not query else b"/"
    rest = _HOST.sub(lambda _: b"\nHost: " + authority + b"\r", head[found.end() :])
    return b"%b %b%b %b" % (method, path, query, rest)
