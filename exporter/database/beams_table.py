"""The communicator's table ``beams``: its rows, its column ``progress``, and the one guarded statement that writes it.

Somebody else's database: other processes write it all the time, some of its revisions fail a case when they wait for a
lock longer than five seconds, and its file may be deleted or replaced under us, after which SQLite writes happily into
the file that is gone. Therefore: never create it, never a read transaction that stays open, never a write longer than a
few milliseconds, and before each use a look whether the file at the path is still the one we hold open.

Columns are addressed by name (migrated databases have them in another order), and every value is taken for what it is:
SQLite stores any type in any column.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from exporter.database.unavailable import DatabaseUnavailable, kind_of, kind_of_place, unavailable

TERMINAL_STATUSES = ("completed", "failed", "cancelled")
COMPLETED_STATUSES = ("completed",)

_KNOWN_COLUMNS = ("beam_id", "parent_case_id", "beam_path", "status", "progress", "hpc_job_id", "updated_at")
_NEEDED_COLUMNS = frozenset({"beam_id", "parent_case_id", "status", "updated_at"})
_IDS_PER_STATEMENT = 500
"""Fewer than the 999 variables that an old SQLite allows in one statement."""

TEXT_LIMIT_BYTES = 4096
"""Longest value worth reading, as long as a path may be: of a longer one only the beginning is read, as bytes."""

ROWS_LIMIT = 100_000
"""Most rows of one look that are not over; those updated last come first."""

UpdateKind = Literal["raise", "lower", "complete"]


@dataclass(frozen=True, slots=True)
class StoredBeam:
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
    """One connection to the table; for one thread at a time.

    Args:
        path: the database file.
        busy_timeout_ms: how long a statement waits for somebody else's lock, milliseconds.
        terminal_statuses: rows in these are not written (but see :class:`ProgressUpdate`).
        completed_statuses: those of them that mean success.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        busy_timeout_ms: int = 500,
        terminal_statuses: Collection[str] = TERMINAL_STATUSES,
        completed_statuses: Collection[str] = COMPLETED_STATUSES,
    ) -> None:
        self._connection: sqlite3.Connection | None = None
        self.path = Path(path)
        self._busy_timeout_ms = busy_timeout_ms
        self._terminal = tuple(terminal_statuses)
        self._completed = tuple(completed_statuses)
        self._identity: tuple[int, int] | None = None
        self._generation = 0
        self._reopen = False

    @property
    def generation(self) -> int:
        """Goes up whenever another file is at the path; this looks there."""
        # What is wrong with the path is said by those who want to use the file.
        with contextlib.suppress(OSError):
            self._identify()
        return self._generation

    def reopen(self) -> None:
        """Have the next use open another connection; from any thread."""
        self._reopen = True

    def close(self) -> None:
        """Give the connection back; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # What could go wrong here concerns a connection that is not used any more.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        # Whoever forgets a table gives its connection back, too.
        self.close()

    def migrate(self) -> bool:
        """Add the column ``progress`` if it is missing, as the plan's phase 1 does.

        Returns:
            Whether it was added.

        Raises:
            DatabaseUnavailable: it cannot be.
        """
        with self._use("add the column progress to") as connection:
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

    def try_writing(self) -> None:
        """Find out whether this account may write here; nothing is changed, and no file is left that was not there.

        Asked before the first use: SQLite opens a file that it may not write for reading, and leaves a ``-shm`` of ours
        beside it, which the communicator may not be able to write. ``BEGIN IMMEDIATE`` is no question: on such a file
        it begins to read. An update of no row is one: it takes the lock for writing, holds it for that one statement
        (some microseconds), and touches neither journal nor ``-wal``.

        Raises:
            DatabaseUnavailable: it may not, or (``locked``) somebody else was writing all the time.
        """
        # Without its folder there is no journal, and no new -wal after the last connection has taken the old one away.
        for place in (self.path, self.path.parent) if os.path.exists(self.path) else ():
            if not _may_write(place):
                raise self._unavailable("read_only", "write progress to", f"this account may not write {place}")
        with self._use("read") as connection:
            self._columns(connection)
        with self._use("write progress to") as connection:
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
    ) -> list[StoredBeam]:
        """Beams that are not over, those updated since a moment, and those with given ids.

        Of the first two kinds there are :data:`ROWS_LIMIT` at most.

        Args:
            updated_since: epoch seconds (the column has whole ones); ``None`` for no such rows.
            also: ids of rows to read in any case.

        Raises:
            DatabaseUnavailable: it cannot be read.
        """
        with self._use("read") as connection:
            there = self._columns(connection)
            columns = [name for name in _KNOWN_COLUMNS if name in there]
            select = f"SELECT {', '.join(map(_bounded, columns))} FROM beams"
            condition = f"status IS NULL OR status NOT IN ({_marks(self._terminal)})"
            values: list[Any] = [*self._terminal]
            if updated_since is not None:
                condition += " OR updated_at >= ?"
                values.append(_stamp(updated_since))
            found = connection.execute(
                f"{select} WHERE {condition} ORDER BY updated_at DESC LIMIT {ROWS_LIMIT}", values
            ).fetchall()
            stored = [_stored(dict(zip(columns, row, strict=True))) for row in found]
            known = {beam.beam_id for beam in stored}
            wanted = [beam_id for beam_id in also if beam_id not in known]
            for start in range(0, len(wanted), _IDS_PER_STATEMENT):
                some = wanted[start : start + _IDS_PER_STATEMENT]
                found = connection.execute(f"{select} WHERE beam_id IN ({_marks(some)})", some).fetchall()
                stored += (_stored(dict(zip(columns, row, strict=True))) for row in found)
            return stored

    def rows_of_cases(self, case_ids: Collection[str]) -> list[StoredBeam]:
        """All beams of some cases, whatever their status and age.

        Args:
            case_ids: the cases.

        Returns:
            At most :data:`ROWS_LIMIT` for each :data:`_IDS_PER_STATEMENT` cases; those updated last come first.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        stored: list[StoredBeam] = []
        wanted = sorted(case_ids)
        with self._use("read") as connection:
            there = self._columns(connection)
            columns = [name for name in _KNOWN_COLUMNS if name in there]
            select = f"SELECT {', '.join(map(_bounded, columns))} FROM beams"
            for start in range(0, len(wanted), _IDS_PER_STATEMENT):
                some = wanted[start : start + _IDS_PER_STATEMENT]
                found = connection.execute(
                    f"{select} WHERE parent_case_id IN ({_marks(some)}) ORDER BY updated_at DESC LIMIT {ROWS_LIMIT}",
                    some,
                ).fetchall()
                stored += (_stored(dict(zip(columns, row, strict=True))) for row in found)
        return stored

    def is_over(self, status: str | None) -> bool:
        """Whether a row in this status is done with."""
        return status in self._terminal

    def every_row(self) -> Iterator[StoredBeam]:
        """All rows, however many and however old; :data:`ROWS_LIMIT` are read at once.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        after: int | None = None
        while True:
            with self._use("read") as connection:
                there = self._columns(connection)
                columns = [name for name in _KNOWN_COLUMNS if name in there]
                found = connection.execute(
                    f"SELECT rowid, {', '.join(map(_bounded, columns))} FROM beams "
                    f"WHERE ? IS NULL OR rowid > ? ORDER BY rowid LIMIT {ROWS_LIMIT}",
                    (after, after),
                ).fetchall()
            yield from (_stored(dict(zip(columns, row[1:], strict=True))) for row in found)
            if len(found) < ROWS_LIMIT:
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
        with self._use("write progress to") as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for update in updates:
                    try:
                        changed = self._write_one(connection, update)
                    except sqlite3.IntegrityError:
                        if not connection.in_transaction:
                            raise  # it has undone the others, too
                        changed = False  # a site's own constraint or trigger refuses this row; the others must not wait
                    if changed:
                        written.add(update.beam_id)
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
        columns = frozenset(row[1] for row in connection.execute("PRAGMA table_info(beams)").fetchall())
        if not columns:
            raise self._unavailable("no_table", "use", "it has no table beams")
        missing = sorted(_NEEDED_COLUMNS - columns)
        if missing:
            raise self._unavailable("no_table", "use", f"its table beams has no column {', '.join(missing)}")
        return columns

    @contextlib.contextmanager
    def _use(self, action: str) -> Iterator[sqlite3.Connection]:
        """The connection to the file that is at the path now; whatever goes wrong is :class:`DatabaseUnavailable`."""
        try:
            yield self._connected()
        except DatabaseUnavailable:
            self.close()
            raise
        except OSError as error:
            self.close()
            kind = kind_of_place(error)
            raise self._unavailable(kind, action, error.strerror or str(error)) from error
        except sqlite3.Error as error:
            kind = kind_of(error)
            if kind != "locked":
                self.close()
            raise self._unavailable(kind, action, str(error)) from error

    def _connected(self) -> sqlite3.Connection:
        if self._reopen:
            self._reopen = False
            self.close()
        self._identify()
        if self._connection is None:
            # autocommit: every transaction is one we begin ourselves, and no read is left open
            connection = sqlite3.connect(
                f"file://{quote(str(self.path.absolute()))}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=self._busy_timeout_ms / 1000,
                check_same_thread=False,
            )
            # Kept before it is used: what goes wrong from here on closes it.
            self._connection = connection
            connection.text_factory = _text
            # In WAL mode this leaves out the fsync at each commit, as the communicator does.
            connection.execute("PRAGMA synchronous = NORMAL")
        return self._connection

    def _identify(self) -> None:
        """Let go of a file that is not at the path any more.

        Raises:
            OSError: nothing can be found there, or a folder.
        """
        status = os.stat(self.path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(self.path))
        identity = (status.st_dev, status.st_ino)
        if identity != self._identity:
            self.close()
            self._generation += self._identity is not None
            self._identity = identity

    def _unavailable(self, kind: str, action: str, reason: str) -> DatabaseUnavailable:
        return unavailable(kind, action, self.path, reason)


def _may_write(place: Path) -> bool:
    """Whether the account that this runs as now may write a file, or put others into a folder."""
    needed = os.W_OK | os.X_OK if place.is_dir() else os.W_OK
    return os.access(place, needed, effective_ids=os.access in os.supports_effective_ids)


def _marks(values: Iterable[object]) -> str:
    return ", ".join("?" for _ in values)


def _bounded(column: str) -> str:
    """A column in a query, with no more of its value than is worth reading: somebody may keep a file in it."""
    return (
        f"CASE WHEN length(CAST({column} AS BLOB)) > {TEXT_LIMIT_BYTES} "
        f"THEN substr(CAST({column} AS BLOB), 1, {TEXT_LIMIT_BYTES + 1}) ELSE {column} END"
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


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


def _stored(row: dict[str, object]) -> StoredBeam:
    def text(name: str) -> str | None:
        value = row.get(name)
        return value if isinstance(value, str) else None

    progress = row.get("progress")
    number = isinstance(progress, (int, float)) and math.isfinite(progress)
    return StoredBeam(
        beam_id=row["beam_id"],
        case_id=row["parent_case_id"],
        beam_path=text("beam_path"),
        status=text("status"),
        progress=float(progress) if number else None,  # type: ignore[arg-type]
        hpc_job_id=text("hpc_job_id"),
        updated_at=_moment(row["updated_at"]),
        too_long=any(isinstance(value, bytes) and len(value) > TEXT_LIMIT_BYTES for value in row.values()),
    )
