"""Turns by address: whose is next, and who must go where there are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.login_queue import LoginQueue, LoginQueueFull


class Desk:
    """Clients that each want one turn; every turn ends when the next is asked for."""

    def __init__(self, at_most: int) -> None:
        self.turns = LoginQueue(at_most)
        self.order: list[str] = []
        self.turned_away: list[str] = []
        self._done: asyncio.Event | None = None
        self._clients: list[asyncio.Task[None]] = []

    async def comes(self, address: str) -> asyncio.Task[None]:
        client = asyncio.get_running_loop().create_task(self._client(address))
        self._clients.append(client)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return client

    async def _client(self, address: str) -> None:
        try:
            async with self.turns.turn(address):
                self.order.append(address)
                self._done = asyncio.Event()
                await self._done.wait()
        except LoginQueueFull:
            self.turned_away.append(address)

    async def serve_all(self) -> None:
        while not all(client.done() for client in self._clients):
            if self._done is not None:
                self._done.set()
            await asyncio.sleep(0)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


def test_addresses_have_their_turns_one_after_another() -> None:
    async def scene() -> None:
        desk = Desk(32)
        for address in ("a", "a", "a", "b", "b", "c"):
            await desk.comes(address)
        await desk.serve_all()
        assert desk.order == ["a", "a", "b", "c", "a", "b"]

    run(scene())


def test_a_newcomer_takes_the_last_place_of_the_address_that_has_most() -> None:
    async def scene() -> None:
        desk = Desk(9)
        for address in ["a"] + ["b"] * 5 + ["c"] * 3:
            await desk.comes(address)
        await desk.comes("d")
        assert desk.turned_away == ["b"]
        await desk.comes("b")
        assert desk.turned_away == ["b", "b"], "the address with most gets no more"
        await desk.serve_all()
        assert desk.order.count("b") == 4
        assert desk.order.index("d") < 5

    run(scene())


def test_where_all_have_one_place_the_newcomer_is_turned_away() -> None:
    async def scene() -> None:
        desk = Desk(4)
        for address in "abcd":
            await desk.comes(address)
        await desk.comes("e")
        assert desk.turned_away == ["e"]

    run(scene())


@given(st.lists(st.tuples(st.sampled_from(["comes", "goes", "ends"]), st.sampled_from("abc")), max_size=40))
def test_whoever_comes_and_goes_every_turn_is_given_back(acts: list[tuple[str, str]]) -> None:
    async def scene() -> None:
        desk = Desk(6)
        clients = []
        for act, address in acts:
            if act == "comes":
                clients.append(await desk.comes(address))
            elif act == "goes" and clients:
                clients.pop(len(clients) // 2).cancel()
                await asyncio.sleep(0)
            elif desk._done is not None:
                desk._done.set()
                await asyncio.sleep(0)
        await desk.serve_all()
        last = await desk.comes("z")
        assert desk.order[-1] == "z"
        last.cancel()
        assert not desk.turns._queues

    run(scene())


def test_a_turn_that_raises_is_given_back() -> None:
    async def scene() -> None:
        turns = LoginQueue(2)
        with pytest.raises(RuntimeError):
            async with turns.turn("a"):
                raise RuntimeError
        async with turns.turn("b"):
            pass

    run(scene())
