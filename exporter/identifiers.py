"""The one place where an identifier becomes text.

A case's id is the patient's at real sites. Whatever leaves the process (metrics, log lines, the page, the API) passes
an id, a path or free text from a log through an :class:`Identifiers`; only the ``beams`` table is addressed by the real
id. Readers of the board hold real ids and must not print them any other way.
"""

from __future__ import annotations

from typing import Protocol


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
