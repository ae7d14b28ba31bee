"""Reads rows of the table ``beams`` within limits, and checks the type of every value.

SQLite stores any type in any column, and a value may be as long as a file. So long values are cut in the query, and a
value of an unexpected type is read as ``None``.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from exporter.database.database_file import TOO_LONG

_KNOWN_COLUMNS = ("beam_id", "parent_case_id", "beam_path", "status", "progress", "hpc_job_id", "updated_at")

ROWS_AT_ONCE = 1000
"""Rows fetched from SQLite at once."""

TEXT_LIMIT_BYTES = 4096
"""Longest value that is read, as long as a path may be. Of a longer one only the beginning is read, as bytes."""

ROWS_LIMIT = 100_000
"""Most rows of one query; the rows updated last come first."""

ROWS_BYTES = 64 * 1024 * 1024
"""Most text in the rows of one query, in bytes. A usual row has about a hundred."""

RawRow = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row. A value of an unexpected type is ``None``.

    Args:
        beam_id: as stored, of any type.
        case_id: as stored, of any type.
        beam_path: folder of the beam.
        status: the communicator's status.
        progress: percent.
        hpc_job_id: job id of the scheduler.
        updated_at: UTC epoch seconds.
        too_long: whether one of its values is longer than :data:`TEXT_LIMIT_BYTES`.
    """

    beam_id: object
    case_id: object
    beam_path: str | None
    status: str | None
    progress: float | None
    hpc_job_id: str | None
    updated_at: float | None
    too_long: bool = False


def known_columns(columns: Collection[str]) -> list[str]:
    """Return the columns that are read, of those that the table has; ``beam_id`` comes first."""
    return [name for name in _KNOWN_COLUMNS if name in columns]


def select_rows(
    connection: sqlite3.Connection, columns: Sequence[str], condition: str, values: Sequence[object]
) -> list[RawRow]:
    """Select rows, at most :data:`ROWS_LIMIT` rows and :data:`ROWS_BYTES` of text. The rows updated last come first.

    Args:
        connection: an open connection.
        columns: result of :func:`known_columns`.
        condition: SQL condition.
        values: its parameters.

    Returns:
        Raw rows; convert them with :func:`to_table_rows` after the database is closed.
    """
    query = f"SELECT {', '.join(map(bounded, columns))} FROM beams WHERE ({condition})"
    rows: list[RawRow] = []
    left_bytes = ROWS_BYTES
    try:
        found = connection.execute(f"{query} ORDER BY updated_at DESC LIMIT {ROWS_LIMIT}", values)
        while left_bytes > 0 and (some := found.fetchmany(ROWS_AT_ONCE)):
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
) -> list[RawRow]:
    """Select row by row, since some row has a value longer than SQLite may read."""
    # Do not use an index: it may hold the long value.
    numbers = connection.execute(
        f"SELECT rowid FROM beams NOT INDEXED ORDER BY rowid DESC LIMIT {ROWS_LIMIT}"
    ).fetchall()
    rows: list[RawRow] = []
    for (number,) in numbers:
        try:
            rows += connection.execute(f"{query} AND rowid = ?", (*values, number)).fetchall()
        except TOO_LONG:
            too_long = b"x" * (TEXT_LIMIT_BYTES + 1)
            rows.append((f"row {number}", *[too_long for _ in columns[1:]]))
    return rows


def to_table_rows(columns: Sequence[str], rows: Iterable[RawRow]) -> list[TableRow]:
    """Convert raw rows."""
    return [_table_row(dict(zip(columns, row, strict=True))) for row in rows]


def placeholders(values: Iterable[object]) -> str:
    """Return one SQL placeholder per value."""
    return ", ".join("?" for _ in values)


def bounded(column: str) -> str:
    """Return the SQL expression that reads a column and cuts long values."""
    return (
        f"CASE WHEN length(CAST({column} AS BLOB)) > {TEXT_LIMIT_BYTES} "
        f"THEN substr(CAST({column} AS BLOB), 1, {TEXT_LIMIT_BYTES + 1}) ELSE {column} END"
    )


def time_stamp(at: float) -> str:
    """Format epoch seconds like the column ``updated_at``: UTC, whole seconds, no zone."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def epoch_seconds(value: object) -> float | None:
    """Parse a time stamp of the column or in ISO 8601; without a zone it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        # Python 3.10 reads neither a Z nor more than six digits of a second.
        parsed = datetime.fromisoformat(value.strip().replace("Z", "+00:00")[:32])
    except ValueError:
        return None
    return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=timezone.utc)).timestamp()


def _table_row(row: dict[str, object]) -> TableRow:
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
        updated_at=epoch_seconds(row["updated_at"]),
        too_long=any(isinstance(value, bytes) and len(value) > TEXT_LIMIT_BYTES for value in row.values()),
    )
