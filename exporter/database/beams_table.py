"""The communicator's table ``beams``: its rows, its column ``progress``, and the one guarded statement that writes it.

Somebody else's database: other processes write it all the time, some of its revisions fail a case when they wait for a
lock longer than five seconds, and its file may be deleted or replaced at any time. Therefore: never create it, never
keep it open (:mod:`exporter.database.database_file`), never a write longer than a few milliseconds.

Columns are addressed by name (migrated databases have them in another order), and every value is taken for what it is:
SQLite stores any type in any column.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from exporter.database.database_file import TOO_LONG, WRITE_SECONDS, DatabaseFile
from exporter.database.files import not_writable
from exporter.database.unavailable import DatabaseUnavailable  # noqa: F401 - what callers of the table catch

TERMINAL_STATUSES = ("completed", "failed", "cancelled")
COMPLETED_STATUSES = ("completed",)

_KNOWN_COLUMNS = ("beam_id", "parent_case_id", "beam_path", "status", "progress", "hpc_job_id", "updated_at")
_NEEDED_COLUMNS = frozenset({"beam_id", "parent_case_id", "status", "updated_at"})
_IDS_PER_STATEMENT = 500
"""Fewer than the 999 variables that an old SQLite allows in one statement."""

_ROWS_AT_ONCE = 1000
"""Rows that are in memory together where all are read one after another."""

TEXT_LIMIT_BYTES = 4096
"""Longest value worth reading, as long as a path may be: of a longer one only the beginning is read, as bytes."""

ROWS_LIMIT = 100_000
"""Most rows of one look that are not over; those updated last come first."""

ROWS_BYTES = 64 * 1024 * 1024
"""Most text in the rows of one query, bytes. A usual row has about a hundred."""

UpdateKind = Literal["raise", "lower", "complete"]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as it is stored; a value of an unexpected type is ``None``. ``updated_at`` in epoch seconds.

    Args:
        too_long: one of its values is longer than :data:`TEXT_LIMIT_BYTES`.
    """

    beam_id: object
    case_id: object
    beam_path: str | None
    status: str | None
    progress: float | None
    hpc_job_id: str | None
    updated_at: float | None
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """A value for the column.

    Args:
        beam_id: the row.
        value: what to write, 0..100.
        kind: ``raise`` only upwards; ``lower`` whatever stands there; ``complete`` upwards on a row that is completed.
        unless: statuses, besides the terminal ones, of a row that has come to be another run's; not for ``complete``.
    """

    beam_id: str
    value: float
    kind: UpdateKind = "raise"
    unless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Which updates changed their row; the others met one that is over, reset, gone, as high, or constrained."""

    written: frozenset[str] = field(default_factory=frozenset)


class BeamsTable:
    """The table. The database is open only while a method works on it.

    Args:
        path: the database file.
        busy_timeout_ms: how long a statement waits for somebody else's lock, milliseconds.
        terminal_statuses: rows in these are not written (but see :class:`ProgressUpdate`).
        completed_statuses: those of them that mean success.
        file: the same file, where several tables of one process share it.
        alone_in_process: see :class:`~exporter.database.database_file.DatabaseFile`; not with ``file``.
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
    def generation(self) -> int:
        """Goes up whenever another file is at the path; this looks there."""
        return self._file.generation

    @property
    def unexplained_changes(self) -> int:
        """Goes up when the database may have been restored; see :class:`DatabaseFile`."""
        return self._file.unexplained_changes

    def unchanged_since(self, moment: float) -> bool:
        """Whether the rows are certainly as they were at a moment; see :class:`DatabaseFile`."""
        return self._file.unchanged_since(moment)

    def interrupt(self) -> None:
        """End a statement that runs now; from any thread."""
        self._file.interrupt()

    def close(self) -> None:
        """Do nothing: no connection is open between uses. For callers that close what they have made."""

    def migrate(self) -> bool:
        """Add the column ``progress`` if it is missing, as the plan's phase 1 does.

        Returns:
            Whether it was added.

        Raises:
            DatabaseUnavailable: it cannot be.
        """
        with self._use("add the column progress to", write=True) as connection:
            if "progress" in self._columns(connection):
                return False
            try:
                connection.execute("ALTER TABLE beams ADD COLUMN progress REAL DEFAULT 0.0")
            except sqlite3.OperationalError as error:
                # The communicator may have added it since we looked.
                if "duplicate column" not in str(error):
                    raise
                return False
            return True

    def check_writable(self) -> None:
        """Find out whether this account may write here; nothing is changed, and no file is left that was not there.

        ``BEGIN IMMEDIATE`` would not tell: on a file that may not be written SQLite begins to read. An update of no row
        does. It takes the lock for writing for some microseconds, and writes neither ``-wal`` nor ``-journal``.

        Raises:
            DatabaseUnavailable: it may not, or (``locked``) somebody else was writing all the time.
        """
        with self._use("read") as connection:
            self._columns(connection)
        # Without its folder there is no new -wal when the communicator has stopped.
        place = not_writable(self.path, folder=True)
        if place is not None:
            raise self._file.error("read_only", "write progress to", f"this account may not write {place}")
        with self._use("write progress to", write=True) as connection:
            connection.execute("UPDATE beams SET updated_at = updated_at WHERE 0")

    def has_progress(self) -> bool:
        """Whether the table has the column ``progress``.

        Raises:
            DatabaseUnavailable: it cannot be read.
        """
        with self._use("read") as connection:
            return "progress" in self._columns(connection)

    def rows(
        self,
        updated_since: float | None = None,
        also: Collection[str] = (),
    ) -> list[TableRow]:
        """Beams that are not over, those updated since a moment, and those with given ids.

        Of the first two kinds there are :data:`ROWS_LIMIT` at most.

        Args:
            updated_since: epoch seconds (the column has whole ones); ``None`` for no such rows.
            also: ids of rows to read in any case.

        Raises:
            DatabaseUnavailable: it cannot be read.
        """
        with self._use("read") as connection:
            columns = _known(self._columns(connection))
            condition = f"status IS NULL OR status NOT IN ({_marks(self._terminal)})"
            values: list[Any] = [*self._terminal]
            if updated_since is not None:
                condition += " OR updated_at >= ?"
                values.append(_stamp(updated_since))
            rows = _select(connection, columns, condition, values)
            known = {row[0] for row in rows}
            wanted = [beam_id for beam_id in also if beam_id not in known]
            for start in range(0, len(wanted), _IDS_PER_STATEMENT):
                some = wanted[start : start + _IDS_PER_STATEMENT]
                rows += _select(connection, columns, f"beam_id IN ({_marks(some)})", some)
        return _all_stored(columns, rows)

    def rows_of_cases(self, case_ids: Collection[str]) -> list[TableRow]:
        """All beams of some cases, whatever their status and age.

        Args:
            case_ids: the cases.

        Returns:
            At most :data:`ROWS_LIMIT` for each :data:`_IDS_PER_STATEMENT` cases; those updated last come first.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        rows: list[_Row] = []
        wanted = sorted(case_ids)
        with self._use("read") as connection:
            columns = _known(self._columns(connection))
            for start in range(0, len(wanted), _IDS_PER_STATEMENT):
                some = wanted[start : start + _IDS_PER_STATEMENT]
                rows += _select(connection, columns, f"parent_case_id IN ({_marks(some)})", some)
        return _all_stored(columns, rows)

    def is_terminal(self, status: str | None) -> bool:
        """Whether a row in this status is done with."""
        return status in self._terminal

    def iter_rows(self) -> Iterator[TableRow]:
        """All rows, however many and however old; :data:`_ROWS_AT_ONCE` are read at once.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        after: int | None = None
        while True:
            with self._use("read") as connection:
                columns = _known(self._columns(connection))
                found = connection.execute(
                    f"SELECT rowid, {', '.join(map(_bounded, columns))} FROM beams "
                    f"WHERE ? IS NULL OR rowid > ? ORDER BY rowid LIMIT {_ROWS_AT_ONCE}",
                    (after, after),
                ).fetchall()
            yield from _all_stored(columns, [row[1:] for row in found])
            if len(found) < _ROWS_AT_ONCE:
                return
            after = found[-1][0]

    def write(self, updates: Sequence[ProgressUpdate]) -> WriteResult:
        """Write progress, all in one transaction.

        Args:
            updates: at most a few hundred, since the lock is held for all of them together.

        Raises:
            DatabaseUnavailable: nothing was written.
            ValueError: a value is not a finite number within 0..100.
        """
        for update in updates:
            if not 0.0 <= update.value <= 100.0:
                raise ValueError(f"progress must be within 0 and 100, not {update.value}")
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
                            raise  # it has undone the others, too
                        changed = False  # a site's own constraint or trigger refuses this row; the others must not wait
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
        """Set one beam's progress (the plan's phase 2): up or down, but never on a row that is over.

        Args:
            beam_id: the row.
            progress: percent; clamped to 0..100.

        Returns:
            Whether the row was changed.

        Raises:
            TypeError: ``beam_id`` is not text.
            ValueError: ``progress`` is no number.
            DatabaseUnavailable: it cannot be written.
        """
        if not isinstance(beam_id, str):
            raise TypeError(f"beam_id must be text, as in the table, not {type(beam_id).__name__}")
        if isinstance(progress, bool) or not isinstance(progress, (int, float)) or progress != progress:
            raise ValueError(f"progress must be a number, not {progress!r}")
        value = float(max(0.0, min(100.0, progress)))
        return beam_id in self.write([ProgressUpdate(beam_id, value, "lower")]).written

    def _write_one(self, connection: sqlite3.Connection, update: ProgressUpdate) -> bool:
        if update.kind == "complete":
            guard, statuses = f"status IN ({_marks(self._completed)})", self._completed
        else:
            statuses = (*self._terminal, *update.unless)
            guard = f"status NOT IN ({_marks(statuses)})"
        # What is no number (a text, a blob) sorts above all numbers and would never be raised.
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
        there = frozenset(row[1] for row in connection.execute("PRAGMA table_info(beams)").fetchall())
        if not there:
            raise self._file.error("no_table", "use", "it has no table beams")
        missing = sorted(_NEEDED_COLUMNS - there)
        if missing:
            raise self._file.error("no_table", "use", f"its table beams has no column {', '.join(missing)}")
        return there

    def _use(self, action: str, *, write: bool = False) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._file.use(action, write=write)


def _known(columns: Collection[str]) -> list[str]:
    return [name for name in _KNOWN_COLUMNS if name in columns]


_Row = tuple[object, ...]


def _select(
    connection: sqlite3.Connection, columns: Sequence[str], condition: str, values: Sequence[object]
) -> list[_Row]:
    """Rows that meet a condition, at most :data:`ROWS_LIMIT` and :data:`ROWS_BYTES`; those updated last come first.

    The first column is ``beam_id``. What they mean is worked out when the database has been closed.
    """
    query = f"SELECT {', '.join(map(_bounded, columns))} FROM beams WHERE ({condition})"
    rows: list[_Row] = []
    left_bytes = ROWS_BYTES
    try:
        found = connection.execute(f"{query} ORDER BY updated_at DESC LIMIT {ROWS_LIMIT}", values)
        while left_bytes > 0 and (some := found.fetchmany(_ROWS_AT_ONCE)):
            for row in some:
                left_bytes -= sum([len(value) for value in row if isinstance(value, (str, bytes))])
                if left_bytes < 0:
                    break
                rows.append(row)
    except TOO_LONG:
        return _select_one_by_one(connection, columns, query, values)
    return rows


def _select_one_by_one(
    connection: sqlite3.Connection, columns: Sequence[str], query: str, values: Sequence[object]
) -> list[_Row]:
    """The same where a value of some row is longer than SQLite may read."""
    # The table itself is walked: an index may hold the long value.
    numbers = connection.execute(
        f"SELECT rowid FROM beams NOT INDEXED ORDER BY rowid DESC LIMIT {ROWS_LIMIT}"
    ).fetchall()
    rows: list[_Row] = []
    for (number,) in numbers:
        try:
            rows += connection.execute(f"{query} AND rowid = ?", (*values, number)).fetchall()
        except TOO_LONG:
            too_long = b"x" * (TEXT_LIMIT_BYTES + 1)
            rows.append((f"row {number}", *[too_long for _ in columns[1:]]))
    return rows


def _all_stored(columns: Sequence[str], rows: Iterable[_Row]) -> list[TableRow]:
    return [_stored(dict(zip(columns, row, strict=True))) for row in rows]


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)


def _bounded(column: str) -> str:
    """A column in a query, with no more of its value than is worth reading: somebody may keep a file in it."""
    return (
        f"CASE WHEN length(CAST({column} AS BLOB)) > {TEXT_LIMIT_BYTES} "
        f"THEN substr(CAST({column} AS BLOB), 1, {TEXT_LIMIT_BYTES + 1}) ELSE {column} END"
    )


def _stamp(at: float) -> str:
    """A moment as the column writes it: UTC, whole seconds, no zone."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _moment(value: object) -> float | None:
    """A time stamp as the column writes it, or as ISO 8601; without a zone it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        # 3.10 reads neither a Z nor more than six digits.
        parsed = datetime.fromisoformat(value.strip().replace("Z", "+00:00")[:32])
    except ValueError:
        return None
    return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=timezone.utc)).timestamp()


def _stored(row: dict[str, object]) -> TableRow:
    def text(name: str) -> str | None:
        value = row.get(name)
        return value if isinstance(value, str) else None

    progress = row.get("progress")
    number = isinstance(progress, (int, float)) and math.isfinite(progress)
    return TableRow(
        beam_id=row["beam_id"],
        case_id=row["parent_case_id"],
        beam_path=text("beam_path"),
        status=text("status"),
        progress=float(progress) if number else None,  # type: ignore[arg-type]
        hpc_job_id=text("hpc_job_id"),
        updated_at=_moment(row["updated_at"]),
        too_long=any(isinstance(value, bytes) and len(value) > TEXT_LIMIT_BYTES for value in row.values()),
    )
