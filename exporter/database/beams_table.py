"""Reads and writes the communicator's table ``beams`` in SQLite.

The database belongs to the communicator. Other processes write it all the time. Some revisions fail a case if they wait
for a lock longer than five seconds. The file may be deleted or replaced at any time. So this module never creates the
file, never keeps it open (:mod:`exporter.database.database_file`) and holds the write lock for milliseconds only.

Columns are addressed by name, because migrated databases have them in another order.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from exporter.beams import statuses
from exporter.database.database_file import WRITE_SECONDS, DatabaseFile
from exporter.database.files import not_writable
from exporter.database.rights import code_in_folder_warning, owner_only_warning
from exporter.database.table import NEEDED_COLUMNS, ProgressUpdate, WriteResult, check_values
from exporter.database.table_rows import (
    ROWS_AT_ONCE,
    RawRow,
    TableRow,
    bounded,
    known_columns,
    placeholders,
    select_rows,
    time_stamp,
    to_table_rows,
)
from exporter.database.unavailable import DatabaseUnavailable  # noqa: F401 - callers of the table catch it

TERMINAL_STATUSES = statuses.TERMINAL
COMPLETED_STATUSES = statuses.COMPLETED

_IDS_PER_STATEMENT = 500
"""Ids in one statement; old SQLite versions allow 999 variables."""


class BeamsTable:
    """The table ``beams`` in an SQLite file, which is open only while a method runs. See :class:`Table`.

    Args:
        path: the database file.
        busy_timeout_ms: longest wait for another process's lock, in milliseconds.
        terminal_statuses: statuses of rows that are not written (but see :class:`ProgressUpdate`).
        completed_statuses: those of them that mean success.
        file: a shared file object, if several tables in this process use the same file.
        alone_in_process: see :class:`~exporter.database.database_file.DatabaseFile`; ignored with ``file``.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        busy_timeout_ms: int = 500,
        terminal_statuses: Collection[str] = TERMINAL_STATUSES,
        completed_statuses: Collection[str] = COMPLETED_STATUSES,
        file: DatabaseFile | None = None,
        alone_in_process: bool = False,
    ) -> None:
        self.path = Path(path)
        self._file = file or DatabaseFile(self.path, busy_timeout_ms=busy_timeout_ms, alone_in_process=alone_in_process)
        self._terminal = tuple(terminal_statuses)
        self._completed = tuple(completed_statuses)

    @property
    def name(self) -> str:
        """Path of the database."""
        return str(self.path)

    def warnings(self) -> list[str]:
        """See :class:`~exporter.database.table.Table`."""
        return [text for text in [code_in_folder_warning(self.path)] if text is not None]

    def connection_warnings(self) -> list[str]:
        """See :class:`~exporter.database.table.Table`."""
        return [text for text in [owner_only_warning(self.path)] if text is not None]

    @property
    def generation(self) -> int:
        """Number of times that another file was found at the path, including now."""
        return self._file.generation

    @property
    def unexplained_changes(self) -> int:
        """Number of times that the database may have been restored; see :class:`DatabaseFile`."""
        return self._file.unexplained_changes

    def unchanged_since(self, at: float) -> bool:
        """Whether the rows have certainly not changed since ``at``; see :meth:`DatabaseFile.unchanged_since`."""
        return self._file.unchanged_since(at)

    def interrupt(self) -> None:
        """Interrupt the running statement. Any thread may call this."""
        self._file.interrupt()

    def close(self) -> None:
        """Do nothing, since no connection is open between uses. It exists for callers that expect it."""

    def migrate(self) -> bool:
        """Add the column ``progress`` if it is missing (phase 1 of the development plan).

        Returns:
            Whether it was added.

        Raises:
            DatabaseUnavailable: it cannot be added.
        """
        with self._use("add the column progress to", write=True) as connection:
            if "progress" in self._columns(connection):
                return False
            try:
                connection.execute("ALTER TABLE beams ADD COLUMN progress REAL DEFAULT 0.0")
            except sqlite3.OperationalError as error:
                # The communicator may have added it in the meantime.
                if "duplicate column" not in str(error):
                    raise
                return False
            return True

    def check_writable(self) -> None:
        """Check that this account may write the database, without changing anything or leaving a new file.

        An update of no row takes the write lock for microseconds and writes neither ``-wal`` nor ``-journal``.
        ``BEGIN IMMEDIATE`` is no check: on a read-only file it succeeds as a read.

        Raises:
            DatabaseUnavailable: it may not, or another process held the lock all the time (``locked``).
        """
        with self._use("read") as connection:
            self._columns(connection)
        # The folder must be writable to create a new -wal after the communicator has stopped.
        place = not_writable(self.path, folder=True)
        if place is not None:
            raise self._file.error("read_only", "write progress to", f"this account may not write {place}")
        with self._use("write progress to", write=True) as connection:
            connection.execute("UPDATE beams SET updated_at = updated_at WHERE 0")

    def has_progress(self) -> bool:
        """Whether the table has the column ``progress``.

        Raises:
            DatabaseUnavailable: the table cannot be read.
        """
        with self._use("read") as connection:
            return "progress" in self._columns(connection)

    def rows(
        self,
        updated_since: float | None = None,
        also: Collection[str] = (),
    ) -> list[TableRow]:
        """Read the rows that are not terminal, the rows updated recently, and the rows with given ids.

        Args:
            updated_since: epoch seconds; also read rows updated since then. ``None``: no such rows.
            also: ids of rows to read in any case.

        Returns:
            At most :data:`~exporter.database.table_rows.ROWS_LIMIT` rows, and those of ``also``.

        Raises:
            DatabaseUnavailable: the table cannot be read.
        """
        with self._use("read") as connection:
            columns = known_columns(self._columns(connection))
            condition = f"status IS NULL OR status NOT IN ({placeholders(self._terminal)})"
            values: list[Any] = [*self._terminal]
            if updated_since is not None:
                condition += " OR updated_at >= ?"
                values.append(time_stamp(updated_since))
            rows = select_rows(connection, columns, condition, values)
            known = {row[0] for row in rows}
            wanted = [beam_id for beam_id in also if beam_id not in known]
            for start in range(0, len(wanted), _IDS_PER_STATEMENT):
                some = wanted[start : start + _IDS_PER_STATEMENT]
                rows += select_rows(connection, columns, f"beam_id IN ({placeholders(some)})", some)
        return to_table_rows(columns, rows)

    def rows_of_cases(self, case_ids: Collection[str]) -> list[TableRow]:
        """Read all rows of some cases, whatever their status and age.

        Args:
            case_ids: the cases.

        Returns:
            At most :data:`~exporter.database.table_rows.ROWS_LIMIT` rows per :data:`_IDS_PER_STATEMENT` cases.

        Raises:
            DatabaseUnavailable: the table cannot be read.
        """
        rows: list[RawRow] = []
        wanted = sorted(case_ids)
        with self._use("read") as connection:
            columns = known_columns(self._columns(connection))
            for start in range(0, len(wanted), _IDS_PER_STATEMENT):
                some = wanted[start : start + _IDS_PER_STATEMENT]
                rows += select_rows(connection, columns, f"parent_case_id IN ({placeholders(some)})", some)
        return to_table_rows(columns, rows)

    def is_terminal(self, status: str | None) -> bool:
        """Whether this status is one of the terminal ones."""
        return status in self._terminal

    def iter_rows(self) -> Iterator[TableRow]:
        """Yield all rows, however many and however old, and read a block of them at a time.

        Raises:
            DatabaseUnavailable: the table cannot be read.
        """
        after: int | None = None
        while True:
            with self._use("read") as connection:
                columns = known_columns(self._columns(connection))
                found = connection.execute(
                    f"SELECT rowid, {', '.join(map(bounded, columns))} FROM beams "
                    f"WHERE ? IS NULL OR rowid > ? ORDER BY rowid LIMIT {ROWS_AT_ONCE}",
                    (after, after),
                ).fetchall()
            yield from to_table_rows(columns, [row[1:] for row in found])
            if len(found) < ROWS_AT_ONCE:
                return
            after = found[-1][0]

    def write(self, updates: Sequence[ProgressUpdate]) -> WriteResult:
        """Write progress in one transaction.

        Args:
            updates: at most a few hundred, since the lock is held until all are written.

        Raises:
            DatabaseUnavailable: nothing was written.
            ValueError: a value is not a finite number within 0..100.
        """
        check_values(updates)
        written = set()
        with self._use("write progress to", write=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._file.limit_time(WRITE_SECONDS)
                for update in updates:
                    try:
                        changed = self._write_one(connection, update)
                    except sqlite3.IntegrityError:
                        if not connection.in_transaction:
                            raise  # the whole transaction was rolled back
                        changed = False  # a site's constraint or trigger refuses this row only
                    if changed:
                        written.add(update.beam_id)
                self._file.check_unchanged("write progress to")
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        return WriteResult(frozenset(written))

    def update_beam_progress(self, beam_id: str, progress: float) -> bool:
        """Set one beam's progress, up or down, unless its row is terminal (phase 2 of the development plan).

        Args:
            beam_id: the row.
            progress: percent; clamped to 0..100.

        Returns:
            Whether the row was changed.

        Raises:
            TypeError: ``beam_id`` is not text.
            ValueError: ``progress`` is not a number.
            DatabaseUnavailable: the table cannot be written.
        """
        if not isinstance(beam_id, str):
            raise TypeError(f"beam_id must be text, as in the table, not {type(beam_id).__name__}")
        if isinstance(progress, bool) or not isinstance(progress, (int, float)) or progress != progress:
            raise ValueError(f"progress must be a number, not {progress!r}")
        value = float(max(0.0, min(100.0, progress)))
        return beam_id in self.write([ProgressUpdate(beam_id, value, "lower")]).written

    def _write_one(self, connection: sqlite3.Connection, update: ProgressUpdate) -> bool:
        if update.kind == "complete":
            guard, statuses = f"status IN ({placeholders(self._completed)})", self._completed
        else:
            statuses = (*self._terminal, *update.unless)
            guard = f"status NOT IN ({placeholders(statuses)})"
        # SQLite sorts text and blobs above all numbers, so they need a comparison of their own.
        compare = (
            "progress <> ?" if update.kind == "lower" else "(progress < ? OR typeof(progress) IN ('text', 'blob'))"
        )
        cursor = connection.execute(
            "UPDATE beams SET progress = ?, updated_at = CURRENT_TIMESTAMP "
            f"WHERE beam_id = ? AND {guard} AND (progress IS NULL OR {compare})",
            (float(update.value), update.beam_id, *statuses, float(update.value)),
        )
        return cursor.rowcount > 0

    def _columns(self, connection: sqlite3.Connection) -> frozenset[str]:
        columns = frozenset(row[1] for row in connection.execute("PRAGMA table_info(beams)").fetchall())
        if not columns:
            raise self._file.error("no_table", "use", "it has no table beams")
        missing = sorted(NEEDED_COLUMNS - columns)
        if missing:
            raise self._file.error("no_table", "use", f"its table beams has no column {', '.join(missing)}")
        return columns

    def _use(self, action: str, *, write: bool = False) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._file.use(action, write=write)
