"""Reads and writes the communicator's table ``beams`` in PostgreSQL.

Other transactions lock rows, sometimes several at a time and in any order. So progress is written by one statement that
skips locked rows: it never waits for a row and can be part of no deadlock. What it skipped stays due.

The exporter needs ``SELECT, UPDATE (progress, updated_at)`` on the table and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from exporter.beams import statuses
from exporter.config import DatabaseSettings
from exporter.database.postgresql_connection import PostgresConnection, Row
from exporter.database.postgresql_errors import ADD_COLUMN
from exporter.database.table import NEEDED_COLUMNS, ProgressUpdate, WriteResult, check_values
from exporter.database.table_rows import (
    ROWS_AT_ONCE,
    ROWS_BYTES,
    ROWS_LIMIT,
    TEXT_LIMIT_BYTES,
    TableRow,
    epoch_seconds,
    known_columns,
    time_stamp,
)
from exporter.database.unavailable import DatabaseUnavailable

READ_SECONDS = 5.0
"""Longest duration of one read. Two hundred thousand rows take less than a second."""

WRITE_SECONDS = 1.0
"""Longest duration of a write. A hundred rows take two milliseconds."""

_TEXT = frozenset({"text", "character varying", "character", "name"})
_FRACTIONS = frozenset({"real", "double precision", "numeric"})
_INTEGERS = frozenset({"smallint", "integer", "bigint"})
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
"""``relkind`` of what cannot be locked row by row, in words (``pg_class``)."""

_SCHEMA = """
SELECT c.relkind::text, a.attname::text, format_type(a.atttypid, NULL), format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.oid = to_regclass('beams') AND a.attnum > 0 AND NOT a.attisdropped
"""
_ELSEWHERE = """
SELECT n.nspname::text, has_schema_privilege(n.oid, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'beams' ORDER BY 2 DESC, 1 LIMIT 1
"""

_WRITE = """
WITH due AS (
    SELECT * FROM jsonb_to_recordset(%(updates)s::jsonb) AS d(id text, value float8, kind text, unless text[])
), wanted AS (
    SELECT b.beam_id FROM beams b JOIN due d ON b.beam_id = d.id WHERE {guard}
), free AS (
    SELECT b.beam_id FROM beams b JOIN due d ON b.beam_id = d.id WHERE {guard} FOR NO KEY UPDATE OF b SKIP LOCKED
), changed AS (
    UPDATE beams b SET progress = {value}, updated_at = {now}
    FROM due d JOIN free f ON f.beam_id = d.id WHERE b.beam_id = d.id AND {guard} RETURNING b.beam_id
)
SELECT w.beam_id, EXISTS (SELECT FROM free f WHERE f.beam_id = w.beam_id),
    EXISTS (SELECT FROM changed c WHERE c.beam_id = w.beam_id) FROM wanted w
"""
_GUARD = """
    CASE d.kind WHEN 'complete' THEN b.status::text = ANY(%(completed)s::text[])
        ELSE b.status::text <> ALL(%(terminal)s::text[]) AND b.status::text <> ALL(d.unless) END
    AND (b.progress IS NULL OR b.progress::float8 = 'NaN'
        OR CASE d.kind WHEN 'lower' THEN b.progress <> {value} ELSE b.progress < {value} END)
"""


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the table.

    Args:
        kind: its type, such as ``numeric``.
        full: its type as in a cast, such as ``numeric(5,2)``.
    """

    kind: str
    full: str


class PostgresTable:
    """The table ``beams`` in PostgreSQL. See :class:`~exporter.database.table.Table`.

    Args:
        database: the section ``database``, with a URL.
        terminal_statuses: statuses of rows that are not written (but see
            :class:`~exporter.database.table.ProgressUpdate`).
        completed_statuses: those of them that mean success.
    """

    def __init__(
        self,
        database: DatabaseSettings,
        *,
        terminal_statuses: Collection[str] = statuses.TERMINAL,
        completed_statuses: Collection[str] = statuses.COMPLETED,
    ) -> None:
        self._zone = database.timezone
        self._terminal = tuple(terminal_statuses)
        self._completed = tuple(completed_statuses)
        self._server = PostgresConnection(database)
        self._kind = ""
        self._columns: Mapping[str, _Column] = {}
        self._columns_are_known = False
        self._table_id: int | None = None
        """Object id of the table that had these columns."""
        self._generation = 0

    @property
    def name(self) -> str:
        """URL of the database, without password."""
        return self._server.name

    @property
    def generation(self) -> int:
        """Number of times that another table was found, such as one made anew."""
        return self._generation

    @property
    def unexplained_changes(self) -> int:
        """Number of logins but the first: before each, the server may have been restored or replaced."""
        return max(0, self._server.openings - 1)

    def unchanged_since(self, at: float) -> bool:
        """Return ``False``: nothing cheaper than reading the rows tells whether they have changed."""
        return False

    def warnings(self) -> list[str]:
        """See :class:`~exporter.database.table.Table`."""
        return []

    def connection_warnings(self) -> list[str]:
        """See :class:`~exporter.database.table.Table`: rights that are granted stay."""
        return []

    def interrupt(self) -> None:
        """End the running statement. Any thread may call this."""
        self._server.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def is_terminal(self, status: str | None) -> bool:
        """Whether this status is one of the terminal ones."""
        return status in self._terminal

    def migrate(self) -> bool:
        """Add the column ``progress`` if it is missing. Only the table's owner may."""
        action = "add the column progress to"
        with self._use(action):
            self._read_columns(action)
            if "progress" in self._columns:
                return False
            try:
                self._server.run(ADD_COLUMN.replace("COLUMN", "COLUMN IF NOT EXISTS"), seconds=WRITE_SECONDS)
            except psycopg.errors.InsufficientPrivilege as error:
                reason = str(error.diag.message_primary)
                raise self._server.error(
                    "permission", action, reason, f"let the table's owner run `{ADD_COLUMN}`"
                ) from error
            self._columns_are_known = False
        return True

    def check_writable(self) -> None:
        """Check that this role may write progress, by an update of no row."""
        action = "write progress to"
        with self._use(action):
            self._read_columns(action)
            self._check_kind(action)
            names = [name for name in ("progress", "updated_at") if name in self._columns]
            assignments = ", ".join(f"{name} = {name}" for name in names)
            self._server.run(f"UPDATE beams SET {assignments} WHERE false", seconds=READ_SECONDS)

    def has_progress(self) -> bool:
        """Whether the table has the column ``progress``."""
        with self._use("read"):
            self._read_columns("read")
        return "progress" in self._columns

    def rows(self, updated_since: float | None = None, also: Collection[str] = ()) -> list[TableRow]:
        """See :class:`~exporter.database.table.Table`."""
        with self._use("read"):
            self._read_columns("read")
            columns = self._columns_now("read")
            condition = "b.status IS NULL OR b.status::text <> ALL(%(terminal)s::text[])"
            values: dict[str, object] = {"terminal": list(self._terminal), "zone": self._zone}
            if updated_since is not None:
                condition += f" OR b.updated_at >= {_instant(columns['updated_at'])}"
                values["since"] = updated_since
                values["since_text"] = time_stamp(updated_since)
            rows = self._select(columns, condition, values)
            known = {row[0] for row in rows}
            wanted = [beam_id for beam_id in also if beam_id not in known]
            if wanted:
                rows += self._select_by(columns, "beam_id", wanted)
        return self._to_table_rows(columns, rows)

    def rows_of_cases(self, case_ids: Collection[str]) -> list[TableRow]:
        """See :class:`~exporter.database.table.Table`."""
        with self._use("read"):
            columns = self._columns_now("read")
            rows = self._select_by(columns, "parent_case_id", sorted(case_ids))
        return self._to_table_rows(columns, rows)

    def iter_rows(self) -> Iterator[TableRow]:
        """See :class:`~exporter.database.table.Table`."""
        after: object = None
        while True:
            with self._use("read"):
                columns = self._columns_now("read")
                listed = ", ".join(_expression(name, column) for name, column in columns.items())
                found = self._server.run(
                    f"SELECT {listed} FROM beams b WHERE %(after)s::text IS NULL OR b.beam_id > %(after)s "
                    f"ORDER BY b.beam_id LIMIT {ROWS_AT_ONCE}",
                    {"after": after, "zone": self._zone},
                    seconds=READ_SECONDS,
                )
            yield from self._to_table_rows(columns, found)
            if len(found) < ROWS_AT_ONCE or found[-1][0] == after:
                return
            after = found[-1][0]

    def write(self, updates: Sequence[ProgressUpdate]) -> WriteResult:
        """See :class:`~exporter.database.table.Table`."""
        check_values(updates)
        action = "write progress to"
        with self._use(action):
            self._columns_now(action)
            self._check_kind(action)
            if "progress" not in self._columns:
                reason, advice = "its table beams has no column progress", f"let the table's owner run `{ADD_COLUMN}`"
                raise self._server.error("no_column", action, reason, advice)
            kind = self._columns["progress"].kind
            if kind not in _FRACTIONS | _INTEGERS:
                reason, advice = f"the column progress has the type {kind}", "let it be real"
                raise self._server.error("no_column", action, reason, advice)
            try:
                return self._write(updates)
            except psycopg.Error as error:
                if not _refuses_a_row(error):
                    raise
            # A site's constraint or trigger refuses one of them.
            results = [self._write_alone(update) for update in updates]
        return WriteResult(
            frozenset().union(*(result.written for result in results)),
            frozenset().union(*(result.locked for result in results)),
        )

    @contextlib.contextmanager
    def _use(self, action: str) -> Iterator[None]:
        try:
            with self._server.use(action):
                yield
        except DatabaseUnavailable:
            self._columns_are_known = False
            raise

    def _write_alone(self, update: ProgressUpdate) -> WriteResult:
        try:
            return self._write([update])
        except psycopg.Error as error:
            if not _refuses_a_row(error):
                raise
            return WriteResult()

    def _write(self, updates: Sequence[ProgressUpdate]) -> WriteResult:
        progress = self._columns["progress"]
        # Values are compared as the column stores them: 66.67 is more than 66.67::real. No integer is rounded up.
        value = f"{'floor(d.value)' if progress.kind in _INTEGERS else 'd.value'}::{progress.full}"
        query = _WRITE.format(guard=_GUARD.format(value=value), value=value, now=_now(self._columns["updated_at"]))
        described = [
            {"id": each.beam_id, "value": float(each.value), "kind": each.kind, "unless": each.unless}
            for each in updates
        ]
        values = {
            "updates": json.dumps(described, ensure_ascii=False),
            "terminal": list(self._terminal),
            "completed": list(self._completed),
            "zone": self._zone,
        }
        written, locked = set(), set()
        for beam_id, is_free, is_changed in self._server.run(query, values, seconds=WRITE_SECONDS):
            if is_changed:
                written.add(beam_id)
            elif not is_free:
                locked.add(beam_id)
        self._check_table()
        return WriteResult(frozenset(written), frozenset(locked))

    def _select(self, columns: Mapping[str, _Column], condition: str, values: Mapping[str, object]) -> list[Row]:
        """Select rows, at most :data:`ROWS_LIMIT` rows and :data:`ROWS_BYTES` of text. The last updated come first."""
        listed = ", ".join(_expression(name, column) for name, column in columns.items())
        sizes = " + ".join(
            f"coalesce(least(octet_length(b.{name}::text), {4 * TEXT_LIMIT_BYTES}), 0)"
            for name, column in columns.items()
            if column.kind in _TEXT
        )
        rows = self._server.run(
            f"SELECT * FROM (SELECT {listed}, sum({sizes or 0}) OVER "
            "(ORDER BY b.updated_at DESC NULLS LAST ROWS UNBOUNDED PRECEDING) AS bytes "
            f"FROM beams b WHERE {condition} ORDER BY b.updated_at DESC NULLS LAST LIMIT {ROWS_LIMIT}) s "
            f"WHERE bytes <= {ROWS_BYTES}",
            values,
            seconds=READ_SECONDS,
        )
        self._check_table()
        return [row[:-1] for row in rows]

    def _select_by(self, columns: Mapping[str, _Column], name: str, ids: Sequence[str]) -> list[Row]:
        if columns[name].kind not in _TEXT or not ids:
            return []
        return self._select(columns, f"b.{name} = ANY(%(ids)s::text[])", {"ids": list(ids), "zone": self._zone})

    def _columns_now(self, action: str) -> dict[str, _Column]:
        """Return the columns that are read, of those that the table has; ``beam_id`` comes first."""
        if not self._columns_are_known:
            self._read_columns(action)
        return {name: self._columns[name] for name in known_columns(self._columns)}

    def _read_columns(self, action: str) -> None:
        found = self._server.run(_SCHEMA, seconds=READ_SECONDS)
        if not found:
            raise self._no_table(action)
        self._kind = found[0][0]
        columns = {name: _Column(kind, full) for _, name, kind, full in found}
        missing = sorted(NEEDED_COLUMNS - columns.keys())
        if missing:
            reason = f"its table beams has no column {', '.join(missing)}"
            raise self._server.error("no_table", action, reason, "is this the communicator's database?")
        self._columns = columns
        if self._table_id != self._server.table_id:
            self._generation += self._table_id is not None
            self._table_id = self._server.table_id
        self._columns_are_known = True

    def _no_table(self, action: str) -> DatabaseUnavailable:
        elsewhere = self._server.run(_ELSEWHERE, seconds=READ_SECONDS)
        user = self._server.user
        if not elsewhere:
            advice = "check database.url: the communicator creates the table at its first start"
            return self._server.error("no_table", action, "it has no table beams", advice)
        [(schema, may_use)] = elsewhere
        if not may_use:
            reason, advice = f"{user} may not use the schema {schema}", f"GRANT USAGE ON SCHEMA {schema} TO {user}"
            return self._server.error("permission", action, reason, f"let its owner run `{advice}`")
        reason = f"its table beams is in the schema {schema}, which is not in the search path of {user}"
        return self._server.error("no_table", action, reason, f"run `ALTER ROLE {user} SET search_path = {schema}`")

    def _check_kind(self, action: str) -> None:
        if self._kind in _KINDS:
            advice = "name the database, or the schema, of the table itself; or set mirror.enabled to false"
            raise self._server.error("no_table", action, f"beams is {_KINDS[self._kind]}", advice)

    def _check_table(self) -> None:
        """Read the columns again, if the table was made anew since they were read."""
        if self._server.table_id != self._table_id:
            self._read_columns("read")

    def _to_table_rows(self, columns: Mapping[str, _Column], rows: Sequence[Row]) -> list[TableRow]:
        return [_table_row(dict(zip(columns, row, strict=True))) for row in rows]


def _refuses_a_row(error: psycopg.Error) -> bool:
    """Whether a constraint (23), a value (22) or a trigger's own exception (P0001) refuses a row."""
    state = error.sqlstate or ""
    return (state[:2] in ("22", "23") and state != "22023") or state == "P0001"


def _expression(name: str, column: _Column) -> str:
    """Return the SQL expression that reads a column, and cuts long texts."""
    here = f"b.{name}"
    if name == "updated_at" and column.kind == "timestamp without time zone":
        return f"extract(epoch FROM {here} AT TIME ZONE %(zone)s)::float8"
    if name == "updated_at" and column.kind == "timestamp with time zone":
        return f"extract(epoch FROM {here})::float8"
    if name == "progress":
        return f"{here}::float8" if column.kind in _FRACTIONS | _INTEGERS else "NULL::float8"
    if name in ("beam_id", "parent_case_id") and column.kind not in _TEXT:
        return here  # refused as an id, because it is no text
    return f"left({here}::text, {TEXT_LIMIT_BYTES + 1})"


def _instant(column: _Column) -> str:
    """Return the SQL expression of the parameter ``since`` in the type of the column ``updated_at``."""
    match column.kind:
        case "timestamp with time zone":
            return "to_timestamp(%(since)s)"
        case "timestamp without time zone":
            return "(to_timestamp(%(since)s) AT TIME ZONE %(zone)s)"
        case _:
            return "%(since_text)s"


def _now(column: _Column) -> str:
    """Return the SQL expression of the present time in the type of the column ``updated_at``."""
    match column.kind:
        case "timestamp with time zone":
            return "now()"
        case "timestamp without time zone":
            return "(now() AT TIME ZONE %(zone)s)"
        case _:
            return "to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"


def _table_row(row: Mapping[str, Any]) -> TableRow:
    def number(name: str, value: object) -> float | None:
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
        return epoch_seconds(value) if name == "updated_at" else None

    return TableRow(
        beam_id=row["beam_id"],
        case_id=row["parent_case_id"],
        beam_path=row.get("beam_path"),
        status=row["status"],
        progress=number("progress", row.get("progress")),
        hpc_job_id=row.get("hpc_job_id"),
        updated_at=number("updated_at", row["updated_at"]),
        too_long=any(
            isinstance(value, str) and len(value.encode("utf-8", "surrogateescape")) > TEXT_LIMIT_BYTES
            for value in row.values()
        ),
    )
