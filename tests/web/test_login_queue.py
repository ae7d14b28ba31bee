"""The login queue: which address is next, and which entry is dropped when the queue is full."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.login_queue import LoginQueue, LoginQueueFull


class Queue:
    """Clients that each want one slot; every slot ends when the next is asked for."""

    def __init__(self, at_most: int) -> None:
        self.login_queue = LoginQueue(at_most)
        self.order: list[str] = []
        self.dropped: list[str] = []
        self._done: asyncio.Event | None = None
        self._clients: list[asyncio.Task[None]] = []

    async def add(self, address: str) -> asyncio.Task[None]:
        client = asyncio.get_running_loop().create_task(self._client(address))
        self._clients.append(client)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return client

    async def _client(self, address: str) -> None:
        try:
            async with self.login_queue.slot(address):
                self.order.append(address)
                self._done = asyncio.Event()
                await self._done.wait()
        except LoginQueueFull:
            self.dropped.append(address)

    async def serve_all(self) -> None:
        while not all(client.done() for client in self._clients):
            if self._done is not None:
                self._done.set()
            await asyncio.sleep(0)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


def test_addresses_take_turns() -> None:
    async def scene() -> None:
        queue = Queue(32)
        for address in ("a", "a", "a", "b", "b", "c"):
            await queue.add(address)
        await queue.serve_all()
        assert queue.order == ["a", "a", "b", "c", "a", "b"]

    run(scene())


def test_a_new_entry_replaces_the_last_one_of_the_address_with_the_most_entries() -> None:
    async def scene() -> None:
        queue = Queue(9)
        for address in ["a"] + ["b"] * 5 + ["c"] * 3:
            await queue.add(address)
        await queue.add("d")
        assert queue.dropped == ["b"]
        await queue.add("b")
        assert queue.dropped == ["b", "b"], "the address with the most entries gets no more"
        await queue.serve_all()
        assert queue.order.count("b") == 4
        assert queue.order.index("d") < 5

    run(scene())


def test_a_new_entry_is_dropped_when_no_address_has_more_than_one() -> None:
    async def scene() -> None:
        queue = Queue(4)
        for address in "abcd":
            await queue.add(address)
        await queue.add("e")
        assert queue.dropped == ["e"]

    run(scene())


@given(st.lists(st.tuples(st.sampled_from(["comes", "goes", "ends"]), st.sampled_from("abc")), max_size=40))
def test_every_slot_is_returned_whichever_clients_are_cancelled(acts: list[tuple[str, str]]) -> None:
    async def scene() -> None:
        queue = Queue(6)
        clients = []
        for act, address in acts:
            if act == "comes":
                clients.append(await queue.add(address))
            elif act == "goes" and clients:
                clients.pop(len(clients) // 2).cancel()
                await asyncio.sleep(0)
            elif queue._done is not None:
                queue._done.set()
                await asyncio.sleep(0)
        await queue.serve_all()
        last = await queue.add("z")
        assert queue.order[-1] == "z"
        last.cancel()
        assert not queue.login_queue._queues

    run(scene())


def test_a_slot_is_returned_after_an_exception() -> None:
    async def scene() -> None:
        login_queue = LoginQueue(2)
        with pytest.raises(RuntimeError):
            async with login_queue.slot("a"):
                raise RuntimeError
        async with login_queue.slot("b"):
            pass

    run(scene())
