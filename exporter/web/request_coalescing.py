"""Answers under load: scrapes that wait share one rendering, and the page cannot take all workers from them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answer = Callable[[Request], Awaitable[Response]]


class RequestCoalescer:
    """Those who ask the same while an answer is being made wait for the next one, and all get that.

    A flood of scrapes so costs two renderings, and nobody gets numbers from before the question.

    Args:
        answer: makes an answer, for one request of those that ask the same.
        sort_of: what two requests must have in common to share an answer; few values.
    """

    def __init__(self, answer: Answer, sort_of: Callable[[Request], Hashable]) -> None:
        self._answer = answer
        self._sort_of = sort_of
        self._waiting: dict[Hashable, tuple[list[Request], asyncio.Task[Response]]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """The answer to a request; see :class:`RequestCoalescer`."""
        sort = self._sort_of(request)
        if sort not in self._waiting:
            self._waiting[sort] = [], asyncio.create_task(self._next(sort))
        requests, task = self._waiting[sort]
        requests.append(request)
        found = await asyncio.shield(task)
        return Response(found.body, found.status_code, dict(found.headers))

    async def _next(self, sort: Hashable) -> Response:
        async with self._one_at_a_time:
            requests, _ = self._waiting.pop(sort)
            for request in requests:
                if not await request.is_disconnected():
                    return await self._answer(request)
        return Response(status_code=503)  # nobody reads it


class ConcurrencyLimit:
    """At most so many requests of a kind at once are in an application; the others wait, without a thread.

    Args:
        app: the application.
        kind_of: the kind of a path; ``None`` needs no turn.
        at_once: requests at once, by kind.
    """

    def __init__(self, app: ASGIApp, kind_of: Callable[[str], str | None], at_once: Mapping[str, int]) -> None:
        self._app = app
        self._kind_of = kind_of
        self._turns = {kind: asyncio.Semaphore(count) for kind, count in at_once.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = self._kind_of(scope["path"])
        if kind is None:
            await self._app(scope, receive, send)
            return
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        try:
            async with self._turns[kind]:
                await self._app(scope, receive, keep)
        finally:
            # Not before: a client that reads slowly must not keep its turn.
            for message in kept:
                await send(message)
