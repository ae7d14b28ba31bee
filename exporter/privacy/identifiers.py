"""How ids, paths and texts are shown outside the process.

At real sites a case id is the id of the patient. Everything that leaves the process (metrics, log lines, page, API,
commands) passes ids, paths and texts of logs through an :class:`Identifiers`. Only the ``beams`` table gets real ids.
Inside the process all ids are real.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Problem(Protocol):
    """An exception with a kind and an advice in our own words; its message may quote other programs."""

    @property
    def kind(self) -> str:
        """One word for the kind of problem."""
        ...

    @property
    def advice(self) -> str:
        """What to do; empty if there is nothing to say."""
        ...


class SafeText(str):
    """Text that may be logged under pseudonyms: from an :class:`Identifiers`, or our own words."""

    __slots__ = ()


class Identifiers(Protocol):
    """Converts ids, paths and texts to what may be shown."""

    def case(self, case_id: str) -> str:
        """Convert a case id."""
        ...

    def beam(self, beam_id: str) -> str:
        """Convert a beam id."""
        ...

    def path(self, path: str) -> str:
        """Convert a path, which may contain ids."""
        ...

    def text(self, text: str) -> str:
        """Convert a line of a log or a text of a row, which may contain ids."""
        ...

    def lines(self, lines: Iterable[str]) -> list[str]:
        """Convert consecutive lines of a log."""
        ...

    def status(self, status: str) -> str:
        """Convert the status of a row. It should be a word of the communicator, but may be any text."""
        ...

    def problem(self, problem: Problem) -> str:
        """Convert an exception whose message may contain ids, paths and words of other programs."""
        ...


class PlainIdentifiers:
    """Shows everything unchanged (``privacy.identifiers: plain``)."""

    def case(self, case_id: str) -> str:
        return case_id

    def beam(self, beam_id: str) -> str:
        return beam_id

    def path(self, path: str) -> str:
        return path

    def text(self, text: str) -> str:
        return text

    def lines(self, lines: Iterable[str]) -> list[str]:
        return [self.text(line) for line in lines]

    def status(self, status: str) -> str:
        return status

    def problem(self, problem: Problem) -> str:
        return str(problem)
