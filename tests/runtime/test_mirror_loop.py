"""When the mirror writes: on progress at once, at most once per interval, rarely otherwise."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow, StoreSnapshot
from exporter.beams.store import BeamStore
from exporter.config import settings_from
from exporter.database.beams_table import BeamsTable
from exporter.database.table import ProgressUpdate, WriteResult
from exporter.logs.events import BatchesAnnounced, BatchStarted, Event, LogRead, RunSucceeded
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.runtime.database_access import DatabaseAccess
from exporter.runtime.discovery_loop import TableDiscoveryLoop
from exporter.runtime.mirror_loop import MirrorLoop
from exporter.runtime.pipeline import Pipeline
from exporter.sources.source import LogStat
from tests.support import communicator_db as db
from tests.support.manual_clock import ManualClock

INTERVAL_SECONDS = 2.0
HOUR = 3600.0


class Site:
    """A database, a store and a mirror loop with a manual clock."""

    def __init__(self, folder: Path, beams: int = 1, *, value: str = "batch") -> None:
        self.path = db.make(folder / "mqi.db")
        self.at = 1_760_000_000.0
        self.keys = [BeamKey("c", f"b{number}") for number in range(beams)]
        for key in self.keys:
            db.add(self.path, key.beam_id)
        settings = settings_from(
            f"base_directory: {folder}\ndatabase: {{path: {self.path}}}\n"
            f"mirror: {{minimum_interval_seconds: {INTERVAL_SECONDS}, value: {value}}}\n",
            "exporter.yaml",
        )
        self.looks = 0
        self.clock = ManualClock(lambda: self.at)
        self.store = BeamStore(StoreRules(), self.at, lambda: self.clock.timeline)
        snapshot = self.store.snapshot

        def counted(at: float) -> StoreSnapshot:
            self.looks += 1
            return snapshot(at)

        self.store.snapshot = counted  # type: ignore[method-assign]
        self.store.update_rows([BeamRow(key, self.at, status="simulation_running") for key in self.keys], (), self.at)
        assert settings.database is not None
        self.in_logs: list[int] = []
        identifiers = PlainIdentifiers()
        access = DatabaseAccess(settings, settings.database, self.store)
        self.discovery = TableDiscoveryLoop(settings, access, self.store, identifiers, self.clock.now)
        self.mirror = MirrorLoop(
            settings,
            access,
            self.store,
            self.clock.now,
            poll_logs=lambda: self.start(self.in_logs[-1]) if self.in_logs else None,
        )
        for key in self.keys:
            self.read(key, BatchesAnnounced(18, 100))

    def read(self, key: BeamKey, *events: Event) -> None:
        path = f"/logs/{key.beam_id}.log"
        now = self.clock.now()
        self.store.claim(key, "local", path, LogStat(1, self.at), now)
        self.store.apply(key, path, [*events, LogRead(1, True, True)], now, more=False)

    def start(self, batch: int, *keys: BeamKey) -> None:
        for key in keys or self.keys:
            self.read(key, BatchStarted(batch, 18))

    def set_clock(self, seconds: float) -> None:
        self.at += seconds
        self.clock.was_set(seconds)

    def set_clock_while_writing(self, seconds: float, patch: pytest.MonkeyPatch) -> None:
        write = BeamsTable.write

        def set_first(table: BeamsTable, updates: Sequence[ProgressUpdate]) -> WriteResult:
            self.set_clock(seconds)
            return write(table, updates)

        patch.setattr(BeamsTable, "write", set_first)

    @property
    def last_write_at(self) -> float | None:
        database = self.store.snapshot(self.clock.now()).database
        assert database is not None
        return database.last_write_at

    def column(self, key: BeamKey | None = None) -> object:
        beam_id = (key or self.keys[0]).beam_id
        return db.execute(self.path, "SELECT progress FROM beams WHERE beam_id = ?", beam_id)[0][0]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_progress_is_written_at_once_if_the_last_write_was_long_ago(site: Site) -> None:
    site.mirror.run_once()
    site.at += 60.0
    site.start(9)

    assert site.mirror.run_once() == INTERVAL_SECONDS
    assert site.column() == 50.0


def test_corrected_permissions_are_used_at_the_next_write(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite shares access to ``-shm`` between all connections of a process, so none may stay open."""
    connect = sqlite3.connect

    def without_rights(database: str, **options: Any) -> Any:
        return connect(f"{database}&readonly_shm=1", **options)

    site.start(1)
    with db.held_open(site.path):
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", without_rights)
            site.discovery.run_once()
            site.mirror.run_once()
        assert site.column() == 0.0
        site.at += 60.0
        site.mirror.run_once()
        assert site.column() == 5.56


def test_after_a_write_no_snapshot_is_taken_before_the_interval_has_passed(site: Site) -> None:
    site.start(1)
    site.mirror.run_once()
    looks = site.looks
    site.start(9)
    site.at += 0.5

    assert site.mirror.run_once() == pytest.approx(INTERVAL_SECONDS - 0.5)
    assert (site.looks, site.column()) == (looks, 5.56)
    site.at += INTERVAL_SECONDS - 0.5
    site.mirror.run_once()
    assert site.column() == 50.0


def test_delayed_updates_are_written_with_the_newest_lines_of_the_logs(site: Site) -> None:
    site.start(1)
    site.mirror.run_once()
    site.start(9)
    site.mirror.run_once()
    site.in_logs.append(18)
    site.at += INTERVAL_SECONDS

    site.mirror.run_once()

    assert site.column() == 100.0


def test_logs_are_not_polled_for_progress_that_was_just_read(site: Site) -> None:
    site.start(1)
    site.in_logs.append(18)

    site.mirror.run_once()

    assert site.column() == 5.56


def test_the_duration_of_a_write_is_not_added_to_the_interval(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    write = BeamsTable.write

    def slow(table: BeamsTable, updates: Sequence[ProgressUpdate]) -> WriteResult:
        site.at += 0.5
        return write(table, updates)

    monkeypatch.setattr(BeamsTable, "write", slow)
    site.start(9)

    assert site.mirror.run_once() == INTERVAL_SECONDS - 0.5


def test_changes_that_need_no_write_do_not_cause_repeated_snapshots(site: Site) -> None:
    site.start(1)
    site.mirror.run_once()
    site.at += 60.0
    site.mirror.run_once()
    looks = site.looks
    for _ in range(100):
        site.at += 0.001
        assert 0 < site.mirror.run_once() <= 0.25

    assert site.looks == looks


@pytest.mark.parametrize(("value", "seconds"), [("batch", 10.0), ("estimated", 1.0)])
def test_without_changes_the_next_run_is_late_unless_estimates_are_written(
    tmp_path: Path, value: str, seconds: float
) -> None:
    site = Site(tmp_path, value=value)
    site.start(1)
    site.mirror.run_once()
    site.at += 60.0

    assert site.mirror.run_once() == seconds


def test_an_update_refused_by_a_locked_database_is_retried_soon(site: Site) -> None:
    locker = db.Locker(site.path)
    site.start(9)
    assert 0 < site.mirror.run_once() <= 1.0
    locker.release()
    site.at += 1.0
    site.mirror.run_once()

    assert site.column() == 50.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_does_not_change_the_interval_after_a_write(site: Site, step: float) -> None:
    site.start(1)
    site.mirror.run_once()
    site.at += 0.5
    site.set_clock(step)
    site.start(9)

    assert site.mirror.run_once() == pytest.approx(INTERVAL_SECONDS - 0.5)
    assert site.column() == 5.56
    site.at += INTERVAL_SECONDS - 0.5
    assert site.mirror.run_once() == pytest.approx(INTERVAL_SECONDS)
    assert site.column() == 50.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_does_not_change_the_backoff_of_a_locked_database(site: Site, step: float) -> None:
    locker = db.Locker(site.path)
    site.start(9)
    for _ in range(4):
        site.mirror.run_once()
        site.at += 60.0
    site.mirror.run_once()  # the fifth time: 8 s until the next
    locker.release()
    site.set_clock(step)
    site.at += 7.0
    site.mirror.run_once()
    assert site.column() == 0.0
    site.at += 1.0
    site.mirror.run_once()

    assert site.column() == 50.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_during_a_write_does_not_delay_the_next_write(
    site: Site, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        site.set_clock_while_writing(step, patched)
        site.start(1)
        assert site.mirror.run_once() == pytest.approx(INTERVAL_SECONDS)
    assert site.last_write_at == pytest.approx(site.at)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_time_of_the_last_write_follows_the_clock(site: Site, step: float) -> None:
    site.start(1)
    site.mirror.run_once()
    site.at += 20.0
    site.set_clock(step)
    assert site.last_write_at == pytest.approx(site.at - 20.0)
    site.mirror.run_once()  # nothing to write
    assert site.last_write_at == pytest.approx(site.at - 20.0)


def test_the_time_of_the_last_write_is_not_changed_by_a_suspended_machine(site: Site) -> None:
    site.start(1)
    site.mirror.run_once()
    site.at += 600.0
    site.clock.was_suspended(600.0)
    site.mirror.run_once()

    assert site.last_write_at == pytest.approx(site.at - 600.0)


def test_a_database_removed_by_a_reload_is_no_longer_shown(tmp_path: Path) -> None:
    source = f"sources: [{{name: local, log_path: '{tmp_path}/{{case_id}}_{{beam_id}}.log'}}]\n"
    with_database = settings_from(f"{source}database: {{path: {db.make(tmp_path / 'mqi.db')}}}\n", "exporter.yaml")
    without = settings_from(f"{source}discovery: {{kind: directory}}\nmirror: {{enabled: false}}\n", "exporter.yaml")
    store = BeamStore(StoreRules(), 0.0)
    following = Pipeline(with_database, store, PlainIdentifiers(), lambda: 0.0)
    assert store.snapshot(0.0).database is not None
    following = Pipeline(without, store, PlainIdentifiers(), lambda: 0.0, following)
    assert store.snapshot(0.0).database is None
    following.close()


def test_each_changed_beam_takes_one_statement_and_all_share_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    site = Site(tmp_path, beams=100)
    monkeypatch.setattr("exporter.database.database_file.sqlite3.connect", traced)
    site.start(1)
    site.mirror.run_once()
    statements.clear()
    for seconds in (60.0, 60.0, 60.0):
        site.at += seconds
        site.mirror.run_once()
    assert statements == [], "nothing has changed"
    site.start(9, *site.keys[:3])
    site.at += 60.0
    site.mirror.run_once()

    kinds = [statement.split()[0] for statement in statements]
    assert kinds == ["PRAGMA", "BEGIN", "UPDATE", "UPDATE", "UPDATE", "COMMIT"]


# The store's word


def _told(site: Site, act: Callable[[], object]) -> int:
    calls: list[bool] = []

    def told() -> None:
        calls.append(site.store._lock.locked())

    site.store.add_listener(told)
    act()
    site.store.remove_listener(told)
    assert not any(calls), "told with the lock held"
    return len(calls)


def test_the_store_wakes_listeners_on_progress_only(site: Site) -> None:
    key = site.keys[0]

    assert _told(site, lambda: site.read(key, BatchStarted(1, 18))) == 1
    assert _told(site, lambda: site.read(key)) == 0, "the log grew"
    assert _told(site, lambda: site.read(key, BatchStarted(1, 18))) == 0, "a line printed twice"
    assert _told(site, lambda: site.read(key, BatchesAnnounced(6, 100))) == 1
    assert _told(site, lambda: site.read(key, RunSucceeded("done"))) == 1
    assert _told(site, lambda: site.store.snapshot(site.at + 3600)) == 0


def test_the_store_wakes_listeners_on_a_new_row_status_but_not_on_every_read(site: Site) -> None:
    row = site.store.snapshot(site.at).beams[0].row

    def read_again() -> None:
        site.store.update_rows([row], (), site.at + 2)

    def completed() -> None:
        site.store.update_rows([BeamRow(row.key, site.at + 4, status="completed")], (), site.at + 4)

    assert _told(site, read_again) == 0
    assert _told(site, completed) == 1


def test_a_removed_listener_is_not_called(site: Site) -> None:
    called = threading.Event()
    site.store.add_listener(called.set)
    site.store.remove_listener(called.set)
    site.start(1)

    assert not called.is_set()
