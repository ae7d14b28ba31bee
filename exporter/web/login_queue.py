"""Turns for what may be done once at a time: by address, so that nobody who asks often keeps others waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LoginQueueFull(Exception):
    """There are too many who wait, and this one's address has more of them than others."""


class LoginQueue:
    """One turn at a time. Addresses have theirs one after another; of one address, who came first.

    Lives in one event loop.

    Args:
        at_most: so many may have a turn or wait for one. A newcomer beyond that takes the place of the last one of the
            address that has the most waiting, if that has more than his own.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._busy = False
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the ``async with`` block ends.

        Args:
            address: whose.

        Raises:
            LoginQueueFull: there is no place to wait, or it has been taken by another address.
        """
        if self._is_full():
            self._make_room(address)
        if self._busy:
            await self._wait(address)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self._next()

    async def _wait(self, address: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(address, deque()).append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._busy = False  # it was its turn just now, and it goes
                self._next()
            else:
                self._leave(address, place)
            raise

    def _is_full(self) -> bool:
        return self._busy + sum(map(len, self._queues.values())) >= self._at_most

    def _make_room(self, address: str) -> None:
        most = max(self._queues, key=lambda each: len(self._queues[each]), default=None)
        if most is None or len(self._queues[most]) <= len(self._queues.get(address, ())) + 1:
            raise LoginQueueFull
        last = self._queues[most][-1]
        self._leave(most, last)
        last.set_exception(LoginQueueFull())

    def _leave(self, address: str, place: asyncio.Future[None]) -> None:
        queue = self._queues.get(address)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._queues[address]

    def _next(self) -> None:
        if self._busy or not self._queues:
            return
        address, queue = next(iter(self._queues.items()))
        place = queue.popleft()
        del self._queues[address]
        if queue:
            self._queues[address] = queue  # behind all other addresses
        self._busy = True  # nobody who comes now may go first
        place.set_result(None)
