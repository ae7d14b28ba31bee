"""SQL statements of a look at the table and of an update, counted as SQLite runs them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey
from exporter.beams.store import BeamStore
from exporter.config import settings_from
from exporter.logs.events import BatchesAnnounced, BatchStarted, Event, LogRead
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.runtime.database_access import DatabaseAccess
from exporter.runtime.discovery_loop import TableDiscoveryLoop
from exporter.runtime.mirror_loop import MirrorLoop
from exporter.sources.source import LogStat
from tests.support import communicator_db as db

BEAMS = 300


class Site:
    """A table of running beams, with the exporter's discovery and mirror loops and a clock of its own."""

    def __init__(self, folder: Path, statements: list[str]) -> None:
        self.statements = statements
        self.at = time.time()
        self.path = path = db.make(folder / "mqi.db")
        for number in range(BEAMS):
            db.add(path, f"b{number}")
        settings = settings_from(f"base_directory: {folder}\ndatabase: {{path: {path}}}\n", "exporter.yaml")
        assert settings.database is not None
        self.store = BeamStore(StoreRules(), self.at)
        identifiers = PlainIdentifiers()
        access = DatabaseAccess(settings, settings.database, self.store)
        self.discovery = TableDiscoveryLoop(settings, access, self.store, identifiers, lambda: self.at)
        self.mirror = MirrorLoop(settings, access, self.store, lambda: self.at)
        self.discovery.run_once()
        self.mirror.run_once()
        self.keys = sorted(self.store.keys())

    def start_batch(self, key: BeamKey, batch: int) -> None:
        path = f"/logs/{key.beam_id}.log"
        self.store.claim(key, "local", path, LogStat(batch, self.at), self.at)
        announced: list[Event] = [BatchesAnnounced(100, 10)] if batch == 1 else []
        events: list[Event] = [*announced, BatchStarted(batch, 100), LogRead(batch, True, True)]
        self.store.apply(key, path, events, self.at, more=False)

    def statements_of(self, loop: TableDiscoveryLoop | MirrorLoop) -> list[str]:
        """Run a loop once, a minute later; return the first word of each SQL statement."""
        self.at += 60.0
        self.statements.clear()
        loop.run_once()
        return [statement.split()[0] for statement in self.statements]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr("exporter.database.database_file.sqlite3.connect", traced)
    return Site(tmp_path, statements)


def test_reading_the_table_takes_two_statements_however_many_beams_run(site: Site) -> None:
    assert len(site.keys) == BEAMS
    assert site.statements_of(site.discovery) == ["PRAGMA", "SELECT"], "its columns, and its rows"


def test_a_look_at_files_that_have_not_changed_opens_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.database.database_file._TIME_STAMP_SECONDS", 0.0)
    site.statements_of(site.discovery)
    for _ in range(3):
        assert site.statements_of(site.discovery) == []
    db.execute(site.path, "UPDATE beams SET status = 'completed' WHERE beam_id = 'b7'")
    assert site.statements_of(site.discovery)[:2] == ["PRAGMA", "SELECT"]


def test_an_update_is_one_statement_and_beams_without_news_cost_none(site: Site) -> None:
    for key in site.keys:
        site.start_batch(key, 1)
    site.statements_of(site.mirror)
    for _ in range(3):
        site.statements_of(site.mirror)
    assert site.statements_of(site.mirror) == []
    for key in site.keys[:30]:
        site.start_batch(key, 2)

    assert site.statements_of(site.mirror) == ["PRAGMA", "BEGIN", *["UPDATE"] * 30, "COMMIT"]
