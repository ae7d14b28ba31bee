"""``/api/v1/events``: changes of beams and sources as server-sent events, for pages that stay open.

One task makes snapshots for all subscribers. It exists only while there are any, and uses at most a tenth of one
processor, so that scrapes are not delayed. A subscriber that does not keep up loses messages and then gets the full
state. The events are:

- ``state``: the content of ``/api/v1/beams`` and ``/api/v1/sources``; sent first, and after lost messages;
- ``change``: ``beams`` with their ids and changed fields, ``gone`` with the ids of beams that are no longer shown, and
  ``ended``, ``summary``, ``sources``, ``database``, ``beams_dropped`` where they have changed;
- ``beat``: nothing has changed. A client that receives nothing for three beats has lost the exporter.

``remaining_seconds`` is never part of a change, since it changes with time alone: it is the time until
``expected_end``, unless the beam is unreachable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.beams.snapshot import StoreSnapshot
from exporter.privacy.identifiers import Identifiers
from exporter.web.api_schema import Json, RenderContext
from exporter.web.changes import ChangeTracker
from exporter.web.responses import JSON_TYPE, compact_json

_LOG = structlog.get_logger(__name__)

SUBSCRIBERS_AT_MOST = 32
_SNAPSHOT_SECONDS = 0.5
_BEAT_SECONDS = 5.0
_PAUSE_FACTOR = 9.0
"""The pause after a snapshot is this many times its duration: 10 000 beams must not keep a processor busy."""
_MESSAGES_WAITING = 16
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back until a block is full
}


def encode_event(event: str, content: Json) -> bytes:
    """Encode one server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), compact_json(content))


class _Subscriber:
    """One open page.

    Attributes:
        needs_state: the next message must be the full state.
        sending: a message is being sent.
    """

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue(_MESSAGES_WAITING)
        self.needs_state = True
        self.sending = False

    def put(self, message: bytes) -> None:
        """Queue a message; if the queue is full, empty it and send the full state later."""
        try:
            self.messages.put_nowait(message)
        except asyncio.QueueFull:
            self._clear()
            self.needs_state = True

    def end(self) -> None:
        self._clear()
        self.messages.put_nowait(None)

    def _clear(self) -> None:
        while not self.messages.empty():
            self.messages.get_nowait()


class EventBroadcaster:
    """Sends events to all subscribers. Lives in the web server's event loop.

    Args:
        snapshot: makes a snapshot of all beams; called in a worker thread.
        identifiers: turns ids, paths and texts into what may leave the process.
        count_error: called with ``events`` when a snapshot fails.
        snapshot_seconds: shortest time between two snapshots.
        beat_seconds: a beat is sent after this long without another event.
        subscribers_at_most: further ones get 503, and poll.
    """

    def __init__(
        self,
        snapshot: Callable[[], StoreSnapshot],
        identifiers: Identifiers,
        count_error: Callable[[str], None],
        *,
        snapshot_seconds: float = _SNAPSHOT_SECONDS,
        beat_seconds: float = _BEAT_SECONDS,
        subscribers_at_most: int = SUBSCRIBERS_AT_MOST,
    ) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._count_error = count_error
        self._snapshot_seconds = snapshot_seconds
        self._beat_seconds = beat_seconds
        self._subscribers_at_most = subscribers_at_most
        self._subscribers: set[_Subscriber] = set()
        self._subscribed = asyncio.Event()
        self._broadcasting: asyncio.Task[None] | None = None
        self._closed = False

    async def answer(self, request: Request) -> Response:
        """Answer ``GET /api/v1/events``."""
        if self._closed or len(self._subscribers) >= self._subscribers_at_most:
            error = f"{len(self._subscribers)} clients listen already; poll /api/v1/beams instead"
            return Response(compact_json({"error": error}), 503, {"Retry-After": "30"}, JSON_TYPE)
        return Response(headers=_HEADERS) if request.method == "HEAD" else _EventStream(self)

    def end_streams(self, for_good: bool) -> None:
        """End every stream. Called in the event loop.

        Args:
            for_good: whether to accept no others.
        """
        self._end_all()
        if for_good:
            self._closed = True
            if self._broadcasting is not None:
                self._broadcasting.cancel()

    def add(self, subscriber: _Subscriber) -> None:
        """Start to send events to a subscriber."""
        self._subscribers.add(subscriber)
        self._subscribed.set()
        if self._closed:
            subscriber.end()
        elif self._broadcasting is None or self._broadcasting.done():
            self._broadcasting = asyncio.create_task(self._broadcast())

    def remove(self, subscriber: _Subscriber) -> None:
        """Send nothing more to a subscriber."""
        self._subscribers.discard(subscriber)

    def _end_all(self) -> None:
        for subscriber in self._subscribers:
            subscriber.end()

    async def _broadcast(self) -> None:
        """Send events as long as there are subscribers."""
        tracker, sent_at = ChangeTracker(), time.monotonic()
        while self._subscribers:
            self._subscribed.clear()
            began = time.monotonic()
            want_state = any(each.needs_state and not each.sending for each in self._subscribers)
            want_change = not all(each.needs_state for each in self._subscribers)
            try:
                state, change = await run_in_threadpool(self._messages, tracker, want_state, want_change)
            except Exception as error:  # noqa: BLE001 -- open pages must not believe that they are up to date
                _LOG.error("cannot send changes to pages", exc_info=error)
                self._count_error("events")
                self._end_all()
                return
            now = time.monotonic()
            if change is None and now - sent_at >= self._beat_seconds:
                change = encode_event("beat", {})
            if change is not None:
                sent_at = now
            self._send(state, change)
            pause = max(self._snapshot_seconds, _PAUSE_FACTOR * (now - began))
            try:
                await asyncio.wait_for(self._subscribed.wait(), pause)
            except asyncio.TimeoutError:
                continue

    def _messages(
        self, tracker: ChangeTracker, want_state: bool, want_change: bool
    ) -> tuple[bytes | None, bytes | None]:
        """Encode the full state and the change, each if it is wanted."""
        snapshot = self._snapshot()
        change = tracker.update(snapshot, RenderContext.of(self._identifiers, snapshot))
        at = round(snapshot.at, 3)
        return (
            encode_event("state", tracker.full_state(at)) if want_state else None,
            encode_event("change", {"at": at, **change}) if want_change and change is not None else None,
        )

    def _send(self, state: bytes | None, change: bytes | None) -> None:
        for subscriber in self._subscribers:
            if not subscriber.needs_state:
                if change is not None:
                    subscriber.put(change)
            elif state is not None and not subscriber.sending:
                subscriber.needs_state = False
                subscriber.put(state)


class _EventStream(Response):
    """A response that goes on until the client or the server ends it."""

    def __init__(self, events: EventBroadcaster) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscriber = _Subscriber()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._events.add(subscriber)
        parts = [asyncio.create_task(_send_messages(subscriber, send)), asyncio.create_task(_until_gone(receive))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._events.remove(subscriber)
            for part in parts:
                part.cancel()
            results = await asyncio.gather(*parts, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise result


async def _send_messages(subscriber: _Subscriber, send: Send) -> None:
    while (message := await subscriber.messages.get()) is not None:
        subscriber.sending = True
        await send({"type": "http.response.body", "body": message, "more_body": True})
        subscriber.sending = False
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
