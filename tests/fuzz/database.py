"""What a row may hold: any type and value in any column. One bad row harms no other, nor what is shown and written.

An input is a table's kind and some rows, each of them eight values: a byte for the type, and what belongs to it.
"""

from __future__ import annotations

import math
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, StoreSnapshot
from exporter.beams.store import BeamStore
from exporter.database.beams_table import COMPLETED_STATUSES, TERMINAL_STATUSES, BeamsTable
from exporter.database.discovery import DatabaseDiscovery
from exporter.database.mirror import Mirror
from exporter.logs.events import BatchesAnnounced, BatchStarted, LogRead
from exporter.metrics.collectors import StoreCollector
from exporter.metrics.encoder import MetricsEncoder
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.sources.source import LogStat
from exporter.web.api_schema import RenderContext, render
from exporter.web.beam_fields import BEAM
from exporter.web.responses import compact_json
from tests.fuzz.choices import Choices
from tests.fuzz.target import Check, Target, draw, scratch

_LONGEST_LINE = 2000
"""Two ids, a status and a source's name, each of 255 bytes, every one of which may need two."""
_LONGEST_ANSWER = 60_000
"""The same, a path, and text of a log."""
NOW = 1_764_000_000.0
_COLUMNS = ("beam_id", "parent_case_id", "beam_path", "status", "progress", "hpc_job_id", "error_message", "updated_at")
_TYPED = (
    "beam_id TEXT PRIMARY KEY, parent_case_id TEXT, beam_path TEXT, status TEXT, progress REAL DEFAULT 0.0, "
    "hpc_job_id TEXT, error_message TEXT, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP"
)
_TABLES = (_TYPED, _TYPED.replace("REAL", "INTEGER"), ", ".join(_COLUMNS).replace(",", " PRIMARY KEY,", 1))
_GOOD = ("good", "case", "/data", "simulation_running", 0.0, None, None, "2025-11-24 16:00:00")
_WORDS = (
    *("a", "good", "case", "simulation_running", "completed", "failed", "pending", "", "0", "-1", "nan", "1e400"),
    *("2025-11-24 16:00:00", "2025-11-24T16:00:00.123456789Z", "9999-12-31 23:59:59", "0001-01-01", "-4713-11-24"),
    *("2025-02-30 00:00:00", "24:00", "now", "20251124", "2025-W48-1", "2025-11-24 16:00:00+23:59", "1764000000"),
)


@contextmanager
def _opened() -> Iterator[Check]:
    with scratch() as folder:
        paths = [folder / f"{number}.db" for number in range(len(_TABLES))]
        for path, columns in zip(paths, _TABLES, strict=True):
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute(f"CREATE TABLE beams ({columns})")
        yield partial(_check, paths)


def _check(paths: list[Path], data: bytes) -> None:
    choices = Choices(data)
    path = choices.one_of(paths)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("DELETE FROM beams")
        _insert(database, _GOOD)
        while choices.left:
            _insert(database, [_value(choices) for _ in _COLUMNS])
        snapshot = _follow(path)
        [[progress]] = database.execute("SELECT progress FROM beams WHERE beam_id = 'good'").fetchall()
        assert progress == 50.0
    if draw(data, 4) == 0:
        # What this costs is more than all the rest.
        _show(snapshot)


def _insert(database: sqlite3.Connection, row: tuple[object, ...] | list[object]) -> None:
    # Bytes are given as blobs; those that are to be a text, whatever it holds, say so.
    marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, _Text) else "?" for value in row)
    database.execute(f"INSERT OR IGNORE INTO beams ({', '.join(_COLUMNS)}) VALUES ({marks})", row)


class _Text(bytes):
    """A text as SQLite keeps it: any bytes."""


def _value(choices: Choices) -> object:
    match choices.number() % 8:
        case 0:
            return None
        case 1:
            return int.from_bytes(choices.some(8), "little", signed=True)
        case 2:
            [number] = struct.unpack("<d", choices.some(8).ljust(8, b"\0"))
            return number
        case 3:
            return choices.text()
        case 4:
            return choices.one_of((math.inf, -math.inf, math.nan, 1e308, -0.0, 2**63 - 1, -(2**63), 101.0))
        case 5:
            return "x" * (choices.number() << 6)
        case 6:
            return choices.one_of(_WORDS)
        case _:
            return _Text(choices.text())


def _follow(path: Path) -> StoreSnapshot:
    """Two looks at the table, every beam it names running, and what is written of it; returns what is shown."""
    with closing(BeamsTable(path)) as table:
        discovery = DatabaseDiscovery(table, retention_seconds=3600)
        store = BeamStore(StoreRules(retention_seconds=1e12, failed_retention_seconds=1e12), NOW - 100)
        for at in (NOW, NOW + 10):
            look = discovery.find_beams(at, store.keys())
            store.count_refused(look.refused)
            store.update_rows(look.rows, look.missing, at)
            assert BeamKey("case", "good") in {row.key for row in look.rows}
            for number, key in enumerate(sorted(store.keys())):
                log = f"/l/{number}.log"
                store.claim(key, "local", log, LogStat(100, at), at)
                read = LogRead(int(at - NOW) + 100, line_complete=True, live=True)
                store.apply(key, log, [BatchesAnnounced(2), BatchStarted(1, 2), read], at, more=False)
            store.advance(at)
        snapshot = store.snapshot(at)
        mirror = Mirror(
            table,
            terminal_statuses=TERMINAL_STATUSES,
            completed_statuses=COMPLETED_STATUSES,
            reset_statuses=("pending",),
            value="batch",
            value_range=(0.0, 100.0),
            minimum_interval_seconds=1.0,
            throttle_percent=1.0,
            timer=lambda: NOW,
        )
        mirror.update(snapshot)
        assert mirror.flush(NOW, now=True).error is None
        return snapshot


def _show(snapshot: StoreSnapshot) -> None:
    identifiers = PlainIdentifiers()
    groups = StoreCollector(lambda: snapshot, identifiers=identifiers)
    text = b"".join(MetricsEncoder(groups).encode(openmetrics=True)).decode()
    assert text.count('mqi_beam_run{case_id="case",beam_id="good"') == 1
    assert max(map(len, text.splitlines())) < _LONGEST_LINE
    shown = RenderContext.of(identifiers, snapshot)
    for view in snapshot.beams:
        assert len(compact_json(render(BEAM, view, shown))) < _LONGEST_ANSWER


def _row(**values: bytes) -> bytes:
    good = dict(zip(_COLUMNS, (b"\6\0", b"\6\2", b"\6\0", b"\6\3", b"\2", b"\0", b"\0", b"\6\x0c"), strict=True))
    return b"".join((good | values).values())


def _seeds() -> Iterator[bytes]:
    for table in range(len(_TABLES)):
        yield bytes([table]) + _row()
        yield bytes([table]) + _row(beam_id=b"\7\3\xff\xfe\0", progress=b"\4\2", updated_at=b"\6\x10")
        yield bytes([table]) + _row(status=b"\5\xff", beam_path=b"\5\xff") + _row(beam_id=b"\1" + b"\xff" * 8)
        for word in range(len(_WORDS)):
            yield bytes([table]) + _row(updated_at=bytes([6, word]))


TARGET = Target(
    _opened,
    _seeds,
    words=(*(bytes([kind, rest]) for kind in range(8) for rest in (0, 1, 2, 255)), _row(), b"\7\2\xed\xa0"),
    longest_bytes=200,
    examples=40,
)
