"""Heads of requests: what h11 reads, and what it lets through that is refused here.

No route takes a body, so a request that announces one is refused when its head is there, and nothing more is read from
its connection. A head that two programs could read in two ways is refused, too: a proxy in front might see other
requests than we do. All of that is found in the head's own bytes, since h11 tells only what it has made of them.
"""

from __future__ import annotations

import re

import h11

HEAD_BYTES_AT_MOST = 16 * 1024

_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([^\r\n]*?)[ \t]*\r", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(/[^?#]*)?(\?.*)?", re.IGNORECASE)


class RequestRefused(h11.RemoteProtocolError):
    """A request that is not answered, whatever it asks for.

    Args:
        status: of the answer.
        text: one line for people.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text, error_status_hint=status)
        self.status = status
        self.text = text


class Requests(h11.Connection):
    """One connection's requests.

    Attributes:
        refused: status and text for the last request, which is not answered; ``None`` where h11 itself could not read
            it, or all is well.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES_AT_MOST)
        self.refused: tuple[int, str] | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """See :meth:`h11.Connection.next_event`.

        Raises:
            RequestRefused: the head that came is not answered.
            h11.RemoteProtocolError: it is none.
        """
        if self.their_state is not h11.IDLE:
            return super().next_event()
        waiting = self.trailing_data[0]
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        head = waiting[: len(waiting) - len(self.trailing_data[0])]
        try:
            _check(head)
            return _in_origin_form(event)
        except RequestRefused as refused:
            # Not the exception itself: its traceback holds all that the client has sent.
            self.refused = refused.status, refused.text
            raise


def _check(head: bytes) -> None:
    # h11 bounds only what is incomplete; this may have come at once.
    if len(head) > HEAD_BYTES_AT_MOST:
        raise RequestRefused(400, "The head of the request is too large.")
    if _BARE_LINE_FEED.search(head):
        raise RequestRefused(400, "A line of the request's head ends without a carriage return.")
    if _FOLDED.search(head):
        raise RequestRefused(400, "A header of the request goes on in a second line.")
    lengths = _LENGTH.findall(head)
    if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
        raise RequestRefused(400, "The request has several lengths.")
    if _TRANSFER_ENCODING.search(head) or (lengths and lengths[0].strip(b"0")):
        raise RequestRefused(413, "No request may have a body here.")


def _in_origin_form(request: h11.Request) -> h11.Request:
    """A request for ``http://host/path`` as one for ``/path`` of that host, which counts more than the header Host."""
    if request.target[:1] in (b"/", b"*") or request.method == b"CONNECT":
        return request
    found = _ABSOLUTE.fullmatch(request.target)
    if found is None:
        return request  # there is no such route
    authority, path, query = found.groups(b"")
    if not path:
        path = b"*" if request.method == b"OPTIONS" and not query else b"/"
    headers = [(name, value) for name, value in request.headers.raw_items() if name.lower() != b"host"]
    return h11.Request(
        method=request.method,
        target=path + query,
        headers=[(b"Host", authority), *headers],
        http_version=request.http_version,
    )
