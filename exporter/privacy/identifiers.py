"""The one place where an identifier becomes text.

A case's id is the patient's at real sites. Whatever leaves the process (metrics, log lines, the page, the API) passes
an id, a path or free text from a log through an :class:`Identifiers`; only the ``beams`` table is addressed by the real
id. Readers of the store hold real ids and must not print them any other way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Problem(Protocol):
    """An exception that says what kind it is, and what to do, in words of ours; its message holds others' too."""

    @property
    def kind(self) -> str:
        """One word."""
        ...

    @property
    def advice(self) -> str:
        """What to do; empty where there is nothing to say."""
        ...


class SafeText(str):
    """Text that may leave the process while ids are redacted: made by an :class:`Identifiers`, or of our own words."""

    __slots__ = ()


class Identifiers(Protocol):
    """How ids, paths and free text are shown outside the process."""

    def case(self, case_id: str) -> str:
        """Text for a case id."""
        ...

    def beam(self, beam_id: str) -> str:
        """Text for a beam id."""
        ...

    def path(self, path: str) -> str:
        """Text for a path, which may hold ids."""
        ...

    def text(self, text: str) -> str:
        """Text for a line of a log or a row, which may hold ids."""
        ...

    def lines(self, lines: Iterable[str]) -> list[str]:
        """The same for lines of a log that follow one another."""
        ...

    def status(self, status: str) -> str:
        """Text for the status of a row: a word of the communicator, but anybody may write another."""
        ...

    def problem(self, problem: Problem) -> str:
        """Text for an exception whose message may hold ids, paths and words of other programs."""
        ...


class PlainIdentifiers:
    """Everything as it is (``privacy.identifiers: plain``)."""

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
