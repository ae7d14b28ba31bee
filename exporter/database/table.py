"""The communicator's table ``beams`` as the rest of the exporter knows it, whatever database holds it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from exporter.database.table_rows import TableRow

NEEDED_COLUMNS = frozenset({"beam_id", "parent_case_id", "status", "updated_at"})
"""Columns without which no beam can be discovered."""

UpdateKind = Literal["raise", "lower", "complete"]


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """A new value for one row's column ``progress``.

    Args:
        beam_id: the row.
        value: percent, 0..100.
        kind: ``raise``: only if it is higher than the stored value; ``lower``: in any case; ``complete``: if it is
            higher and the row is completed.
        unless: statuses, besides the terminal ones, in which the row is not written; not used for ``complete``.
    """

    beam_id: str
    value: float
    kind: UpdateKind = "raise"
    unless: tuple[str, ...] = ()


def check_values(updates: Sequence[ProgressUpdate]) -> None:
    """Check that every value is a finite number within 0..100.

    Raises:
        ValueError: one is not.
    """
    for update in updates:
        if not 0.0 <= update.value <= 100.0:
            raise ValueError(f"progress must be within 0 and 100, not {update.value}")


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Result of :meth:`Table.write`.

    Args:
        written: ids of the rows that changed.
        locked: ids of the rows that another transaction held locked. Their updates must be tried again.

    The other rows were terminal, reset, gone, already as high, or refused by a constraint or trigger.
    """

    written: frozenset[str] = field(default_factory=frozenset)
    locked: frozenset[str] = field(default_factory=frozenset)


class Table(Protocol):
    """The table ``beams``. Several threads may use it, one at a time.

    Every method that reads or writes raises :class:`~exporter.database.unavailable.DatabaseUnavailable` if the
    database cannot be used now. A later call may succeed.
    """

    @property
    def name(self) -> str:
        """Path or URL of the database, for people. It holds no password."""
        ...

    @property
    def generation(self) -> int:
        """Number of times that another table was found in the place of the previous one."""
        ...

    @property
    def unexplained_changes(self) -> int:
        """Number of times that the rows may have been restored from a backup."""
        ...

    def unchanged_since(self, at: float) -> bool:
        """Whether the rows have certainly not changed since ``at``, by the monotonic clock."""
        ...

    def warnings(self) -> list[str]:
        """Return warnings about access rights that are too wide, without using the database."""
        ...

    def connection_warnings(self) -> list[str]:
        """Return warnings about access rights that will not last. The database is used."""
        ...

    def interrupt(self) -> None:
        """End the running statement. Any thread may call this."""
        ...

    def close(self) -> None:
        """Close what is open. The table can still be used and then opens it again."""
        ...

    def migrate(self) -> bool:
        """Add the column ``progress`` if it is missing; return whether it was."""
        ...

    def check_writable(self) -> None:
        """Check that this account may write progress, without changing anything.

        Raises:
            DatabaseUnavailable: it may not, or it is not known because others held a lock (``locked``).
        """
        ...

    def has_progress(self) -> bool:
        """Whether the table has the column ``progress``."""
        ...

    def rows(self, updated_since: float | None = None, also: Collection[str] = ()) -> list[TableRow]:
        """Read the rows that are not terminal, the rows updated recently, and the rows with given ids.

        Args:
            updated_since: epoch seconds; also read rows updated since then. ``None``: no such rows.
            also: ids of rows to read in any case.

        Returns:
            At most :data:`~exporter.database.table_rows.ROWS_LIMIT` rows, the last updated first, and those of
            ``also``.
        """
        ...

    def rows_of_cases(self, case_ids: Collection[str]) -> list[TableRow]:
        """Read all rows of some cases, whatever their status and age, within the same limits."""
        ...

    def is_terminal(self, status: str | None) -> bool:
        """Whether this status is one of the terminal ones."""
        ...

    def iter_rows(self) -> Iterator[TableRow]:
        """Yield all rows, however many and however old, and read a block of them at a time."""
        ...

    def write(self, updates: Sequence[ProgressUpdate]) -> WriteResult:
        """Write progress.

        Args:
            updates: at most a few hundred, one per row.

        Raises:
            DatabaseUnavailable: nothing was written.
            ValueError: a value is not a finite number within 0..100.
        """
        ...
