"""``/api/v1/events``: the store as it changes, as server-sent events, for pages that stay open.

One task looks at the store for all listeners and tells each what has changed since the last look; it exists only while
somebody listens, and takes at most a tenth of one processor's time, so that scrapes are not delayed. A listener that
does not keep up loses what it missed and is told everything anew. What is sent:

- ``state``: everything, at first and after something was missed: what ``/api/v1/beams`` and ``/api/v1/sources`` say;
- ``change``: ``beams`` with their ids and the fields that are other than before, ``gone`` with the ids of those that
  left, and ``ended``, ``summary``, ``sources``, ``database``, ``beams_dropped`` where they are other;
- ``beat``: nothing has changed; a client that hears nothing for three of them has lost the exporter.

``remaining_seconds`` is not sent in a change, since it moves by time alone: it is the time until ``expected_end``,
unless the beam is unreachable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.beams.snapshot import StoreSnapshot
from exporter.privacy.identifiers import Identifiers
from exporter.web import fields
from exporter.web.api import compact, source_parts
from exporter.web.fields import Json, RenderContext, render

_LOG = structlog.get_logger(__name__)

LISTENERS_AT_MOST = 32
_LOOK_SECONDS = 0.5
_BEAT_SECONDS = 5.0
_PAUSES_PER_LOOK = 9.0
"""After a look, a pause of so many times as long as it took: 10 000 beams must not keep a processor busy."""
_MESSAGES_WAITING = 16
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back until a block is full
}
_TOLERANCES = {"estimated_ratio": 0.001, "expected_end": 5.0}
"""Estimates move at every look; so much is worth telling."""
_UNTOLD = frozenset({"remaining_seconds"})
_IDS = ("case_id", "beam_id")

Beams: TypeAlias = dict[tuple[str, str], Json]

_OF_SOURCES = ("name", "kind", "up", "reason", "folders_missing", "clock_offset_seconds", "beams", "errors")
"""What of a source is worth telling at once."""


class ChangeTracker:
    """What listeners have been told, and what is to be told next."""

    def __init__(self) -> None:
        self._beams: Beams = {}
        self._rest: Json = {}
        self._sources: object = None

    def state(self, at: float) -> Json:
        """Everything as told."""
        return {"at": at, **self._rest, "beams": list(self._beams.values())}

    def take(self, snapshot: StoreSnapshot, shown: RenderContext) -> Json | None:
        """Take a look at the store.

        Returns:
            What a listener must be told to know it, or ``None`` where that is nothing.
        """
        change: Json = {}
        beams: Beams = {}
        changed: list[Json] = []
        for view in snapshot.beams:
            beam = render(fields.BEAM, view, shown)
            key = beam["case_id"], beam["beam_id"]
            known = self._beams.get(key)
            if known is None:
                beams[key] = beam
                changed.append(beam)
                continue
            beams[key] = known
            known.update({name: beam[name] for name in _UNTOLD})
            news = {name: value for name, value in beam.items() if _is_news(name, known[name], value)}
            if news:
                known.update(news)
                changed.append({**{name: known[name] for name in _IDS}, **news})
        if changed:
            change["beams"] = changed
        if gone := [list(key) for key in self._beams.keys() - beams.keys()]:
            change["gone"] = gone
        self._beams = beams
        for name, value in self._rest_of(snapshot, shown).items():
            if self._rest.get(name, ...) != value:
                self._rest[name] = change[name] = value
        return change or None

    def _rest_of(self, snapshot: StoreSnapshot, shown: RenderContext) -> Json:
        parts = source_parts(snapshot, shown)
        # Counters of looks move at every look: they come along with what matters.
        matters = (
            [{name: source[name] for name in _OF_SOURCES} for source in parts["sources"]],
            None if parts["database"] is None else parts["database"]["up"],
            int(shown.at // (2 * _BEAT_SECONDS)),
        )
        if matters == self._sources:
            parts = {name: self._rest[name] for name in parts}
        self._sources = matters
        return {
            "summary": fields.summary(snapshot),
            "beams_dropped": snapshot.beams_dropped,
            "ended": [render(fields.ENDED, run, shown) for run in snapshot.ended],
            **parts,
        }


def _is_news(name: str, known: Any, value: Any) -> bool:
    if known == value or name in _UNTOLD:
        return False
    tolerance = _TOLERANCES.get(name)
    if tolerance is None or known is None or value is None:
        return True
    return abs(value - known) >= tolerance or value in (0.0, 1.0)


def message(event: str, content: Json) -> bytes:
    """One event as it is sent."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), compact(content))


class _Listener:
    """One open page. ``behind``: it must be told everything. ``busy``: it has not taken what it was sent."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue(_MESSAGES_WAITING)
        self.behind = True
        self.busy = False

    def tell(self, message: bytes) -> None:
        try:
            self.messages.put_nowait(message)
        except asyncio.QueueFull:
            self.forget()
            self.behind = True

    def forget(self) -> None:
        while not self.messages.empty():
            self.messages.get_nowait()

    def end(self) -> None:
        self.forget()
        self.messages.put_nowait(None)


class Events:
    """All listeners, and the task that looks for them. Lives in the web server's event loop.

    Args:
        snapshot: takes a snapshot of the store; called in a worker thread.
        identifiers: how ids, paths and texts are shown.
        count_error: told ``events`` when a look fails.
        look_seconds: the least time between two looks.
        beat_seconds: a beat is sent when nothing else was for so long.
        listeners_at_most: those beyond get 503, and poll.
    """

    def __init__(
        self,
        snapshot: Callable[[], StoreSnapshot],
        identifiers: Identifiers,
        count_error: Callable[[str], None],
        *,
        look_seconds: float = _LOOK_SECONDS,
        beat_seconds: float = _BEAT_SECONDS,
        listeners_at_most: int = LISTENERS_AT_MOST,
    ) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._count_error = count_error
        self._look_seconds = look_seconds
        self._beat_seconds = beat_seconds
        self._listeners_at_most = listeners_at_most
        self._listeners: set[_Listener] = set()
        self._wanted = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    async def answer(self, request: Request) -> Response:
        """``GET /api/v1/events``."""
        if self._closed or len(self._listeners) >= self._listeners_at_most:
            body = compact({"error": f"{len(self._listeners)} listen already; poll /api/v1/beams instead"})
            return Response(body, 503, {"Retry-After": "30"}, "application/json")
        return Response(headers=_HEADERS) if request.method == "HEAD" else _Stream(self)

    def end(self, for_good: bool) -> None:
        """End every stream, and accept no other where that is ``for_good``. Called in the event loop."""
        if not for_good:
            self._end_all()
            return
        self._closed = True
        self._end_all()
        if self._looking is not None:
            self._looking.cancel()

    def _end_all(self) -> None:
        for listener in self._listeners:
            listener.end()

    def add(self, listener: _Listener) -> None:
        """Somebody begins to listen."""
        self._listeners.add(listener)
        self._wanted.set()
        if self._closed:
            listener.end()
        elif self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_somebody_listens())

    def remove(self, listener: _Listener) -> None:
        """Somebody has gone."""
        self._listeners.discard(listener)

    async def _look_while_somebody_listens(self) -> None:
        told, told_at = ChangeTracker(), time.monotonic()
        while self._listeners:
            self._wanted.clear()
            began = time.monotonic()
            everything = any(listener.behind and not listener.busy for listener in self._listeners)
            news = not all(listener.behind for listener in self._listeners)
            try:
                state, change = await run_in_threadpool(self._look, told, everything, news)
            except Exception as error:  # noqa: BLE001 -- pages that would believe they are up to date must be told
                _LOG.error("cannot tell pages what has changed", exc_info=error)
                self._count_error("events")
                self._end_all()
                return
            now = time.monotonic()
            if change is None and now - told_at >= self._beat_seconds:
                change = message("beat", {})
            if change is not None:
                told_at = now
            self._tell(state, change)
            pause = max(self._look_seconds, _PAUSES_PER_LOOK * (now - began))
            try:
                await asyncio.wait_for(self._wanted.wait(), pause)
            except asyncio.TimeoutError:
                continue

    def _look(self, told: ChangeTracker, everything: bool, news: bool) -> tuple[bytes | None, bytes | None]:
        """The messages that are wanted."""
        snapshot = self._snapshot()
        change = told.take(snapshot, RenderContext.of(self._identifiers, snapshot))
        at = round(snapshot.at, 3)
        return (
            message("state", told.state(at)) if everything else None,
            message("change", {"at": at, **change}) if news and change is not None else None,
        )

    def _tell(self, state: bytes | None, change: bytes | None) -> None:
        for listener in self._listeners:
            if not listener.behind:
                if change is not None:
                    listener.tell(change)
            elif state is not None and not listener.busy:
                listener.behind = False
                listener.tell(state)


class _Stream(Response):
    """An answer that goes on until the client or the server ends it."""

    def __init__(self, events: Events) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listener = _Listener()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._events.add(listener)
        parts = [asyncio.create_task(_pass_on(listener, send)), asyncio.create_task(_until_gone(receive))]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._events.remove(listener)
            for part in parts:
                part.cancel()
            results = await asyncio.gather(*parts, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise result


async def _pass_on(listener: _Listener, send: Send) -> None:
    while (message := await listener.messages.get()) is not None:
        listener.busy = True
        await send({"type": "http.response.body", "body": message, "more_body": True})
        listener.busy = False
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
