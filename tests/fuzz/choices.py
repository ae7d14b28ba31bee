"""Bytes read as choices: what an input means where a target needs more than bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


class Choices:
    """An input, taken bit by bit; where nothing is left every choice is the first and every number 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have not been taken."""
        return len(self._data) - self._at

    def some(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def number(self, size: int = 1) -> int:
        """A number of ``size`` bytes."""
        return int.from_bytes(self.some(size), "little")

    def text(self) -> bytes:
        """Bytes behind their length."""
        return self.some(self.number())

    def one_of(self, things: Sequence[Thing]) -> Thing:
        """One of at most 256."""
        return things[self.number() % len(things)]
