"""A fair queue for password checks: one at a time, and client addresses take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LoginQueueFull(Exception):
    """The queue is full, and no other address has more entries."""


class LoginQueue:
    """Gives one slot at a time to the waiting addresses in turn; within one address, first in, first out.

    Lives in one event loop.

    Args:
        at_most: number of entries, including the one that has the slot. When the queue is full, a new entry replaces
            the last one of the address with the most entries, if that has more than the new one's address.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._busy = False
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def slot(self, address: str) -> AsyncIterator[None]:
        """Wait for the slot, and hold it until the ``async with`` block ends.

        Args:
            address: the client's.

        Raises:
            LoginQueueFull: the queue is full, or a newer entry replaced this one.
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
            self._give_slot_to_next()

    async def _wait(self, address: str) -> None:
        entry: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(address, deque()).append(entry)
        try:
            await entry
        except BaseException:
            if entry.done() and not entry.cancelled() and entry.exception() is None:
                self._busy = False  # cancelled after it was given the slot
                self._give_slot_to_next()
            else:
                self._leave(address, entry)
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

    def _leave(self, address: str, entry: asyncio.Future[None]) -> None:
        queue = self._queues.get(address)
        if queue is not None and entry in queue:
            queue.remove(entry)
            if not queue:
                del self._queues[address]

    def _give_slot_to_next(self) -> None:
        if self._busy or not self._queues:
            return
        address, queue = next(iter(self._queues.items()))
        entry = queue.popleft()
        del self._queues[address]
        if queue:
            self._queues[address] = queue  # after all other addresses
        self._busy = True  # new entries must wait
        entry.set_result(None)
