"""Limits concurrent work: scrapes that wait share one answer, and other requests wait for a free place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answer = Callable[[Request], Awaitable[Response]]


class RequestCoalescer:
    """Makes one answer at a time; requests that arrive meanwhile and ask for the same share the next one.

    So a flood of equal requests costs two answers, and nobody gets numbers from before the request.

    Args:
        answer: makes an answer for one request.
        key_of: returns what two requests must have in common to share an answer.
    """

    def __init__(self, answer: Answer, key_of: Callable[[Request], Hashable]) -> None:
        self._answer = answer
        self._key_of = key_of
        self._waiting: dict[Hashable, tuple[list[Request], asyncio.Task[Response]]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer a request, alone or together with equal ones."""
        key = self._key_of(request)
        if key not in self._waiting:
            self._waiting[key] = [], asyncio.create_task(self._answer_waiting(key))
        requests, task = self._waiting[key]
        requests.append(request)
        shared = await asyncio.shield(task)
        return Response(shared.body, shared.status_code, dict(shared.headers))

    async def _answer_waiting(self, key: Hashable) -> Response:
        async with self._one_at_a_time:
            requests, _ = self._waiting.pop(key)
            for request in requests:
                if not await request.is_disconnected():
                    return await self._answer(request)
        return Response(status_code=503)  # all clients have gone


class ConcurrencyLimit:
    """Middleware that limits the concurrent requests of each kind. Others wait, without a thread.

    Args:
        app: the application.
        kind_of: returns the kind of a path; ``None`` means no limit.
        limits: concurrent requests by kind.
    """

    def __init__(self, app: ASGIApp, kind_of: Callable[[str], str | None], limits: Mapping[str, int]) -> None:
        self._app = app
        self._kind_of = kind_of
        self._semaphores = {kind: asyncio.Semaphore(count) for kind, count in limits.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI wants it."""
        kind = self._kind_of(scope["path"])
        if kind is None:
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        try:
            async with self._semaphores[kind]:
                await self._app(scope, receive, collect)
        finally:
            # Sent only now: a client that reads slowly must not keep its place.
            for message in messages:
                await send(message)
