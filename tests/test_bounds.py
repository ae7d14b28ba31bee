"""Every limit of the operations guide has a test that exceeds it. This module has those that fit no other folder."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from exporter.beams import retention as retirement
from exporter.beams.rules import StoreRules
from exporter.beams.runs import RunSequence
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.config import ConfigError, settings_from
from exporter.config.reading import MISTAKES_LIMIT
from exporter.config.settings import SOURCES_LIMIT
from exporter.database import beams_table, database_file, discovery, table_rows
from exporter.database.beams_table import BeamsTable
from exporter.database.discovery import DatabaseDiscovery
from exporter.database.table import ProgressUpdate
from exporter.database.table_rows import TEXT_LIMIT_BYTES
from exporter.database.unavailable import DatabaseUnavailable
from exporter.logs.events import BatchesAnnounced, BatchStarted, LogRead, LogReplaced, RunFailed
from exporter.logs.parser import TpsLogParser
from exporter.runtime import discovery_loop, log_output
from exporter.runtime.log_output import VALUE_CHARACTERS, render_json, render_logfmt
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from tests.support import communicator_db as db
from tests.support.world import World

ROOT = Path(__file__).parents[1]
NOW = 1_800_000_000.0


def bounds() -> list[tuple[str, str]]:
    """Return each row of the table in docs/developer/limits.md: the limit, and the test that exceeds it."""
    text = (ROOT / "docs" / "developer" / "limits.md").read_text(encoding="utf-8")
    table = text.split("| limit | value |", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(row[0], row[3].strip("`")) for row in rows]


@pytest.mark.parametrize(("limit", "test"), bounds())
def test_each_limit_in_the_documents_names_its_test(limit: str, test: str) -> None:
    path, name = test.split("::")
    text = (ROOT / "tests" / path).read_text(encoding="utf-8")
    assert re.search(rf"^ *def {name}\(", text, re.MULTILINE), f"{limit}: there is no {test}"


class TestStore:
    def rows(self, store: BeamStore, count: int) -> None:
        store.update_rows([BeamRow(BeamKey("c", f"b{number}"), NOW) for number in range(count)], (), NOW)
        store.advance(NOW)

    def test_beams_above_twice_the_limit_are_refused_until_there_is_room(self) -> None:
        store = BeamStore(StoreRules(max_beams=3), NOW)
        self.rows(store, 100)
        assert len(store.keys()) == 6
        snapshot = store.snapshot(NOW)
        assert (len(snapshot.beams), snapshot.beams_dropped) == (3, 97)
        store.set_rules(StoreRules(max_beams=60))
        self.rows(store, 100)
        snapshot = store.snapshot(NOW)
        assert (len(snapshot.beams), snapshot.beams_dropped) == (60, 40)

    def test_only_the_last_forgotten_beams_are_remembered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retirement, "_KEPT", 3)
        world = World(tmp_path, StoreRules(max_beams=3, retention_seconds=1))
        for number in range(6):
            key = BeamKey("c", f"c_{number}")
            world.row("completed", key=key)
            world.look()
            world.drop_row(key)
            for _ in range(5):
                world.look(100)
        assert not world.store.keys()
        assert [key.beam_id for key in world.store._data.forgotten.by_key] == ["c_3", "c_4", "c_5"]

    def test_only_the_last_ended_runs_are_kept_for_the_page(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        for _ in range(201):
            world.row()
            world.write(b"ERROR: no beam\n", anew=True)
            world.look()
            world.row("pending", 0.0)
            world.write(b"", anew=True)
            world.look(10)
        ended = world.snapshot().ended
        assert (len(ended), ended[0].run_number, ended[-1].run_number) == (200, 2, 201)

    def test_an_empty_log_that_is_touched_repeatedly_keeps_one_event(self) -> None:
        runs = RunSequence()
        runs.apply(BatchesAnnounced(3), NOW)
        runs.apply(LogReplaced(), NOW)
        for second in range(10_000):
            runs.apply(LogRead(0, line_complete=True, live=True), NOW + second)
        saved = json.loads(TypeAdapter(RunSequence).dump_json(runs))
        assert len(saved["_undecided"]) == 1
        assert runs.apply(BatchStarted(1, 3), NOW + 10_000) is False


def test_the_text_of_a_failure_is_cut() -> None:
    [failure] = TpsLogParser().feed(b"ERROR: " + b"x" * 10_000 + b"\n")
    assert isinstance(failure, RunFailed)
    assert len(failure.text) == 500


def test_one_poll_reads_a_limited_amount_and_the_next_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.polling.poller.READS_PER_POLL", 2)
    monkeypatch.setattr("exporter.sources.tailer.READ_BYTES", 1000)
    world = World(tmp_path)
    world.row()
    world.store.update_rows(world.rows.values(), (), world.at)
    world.write(b"x\n" * 5000)
    read_bytes = []
    more = True
    while more:
        more = world.poller.poll()
        read_bytes.append(world.snapshot().sources[0].read_bytes)
    assert read_bytes == [2000, 4000, 6000, 8000, 10_000]


class TestRows:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = db.make(tmp_path / "mqi_communicator.db")
        db.add(path, "good")
        return path

    def look(self, path: Path) -> tuple[set[str], dict[str, int]]:
        table = BeamsTable(path)
        found = DatabaseDiscovery(table, retention_seconds=3600).find_beams(NOW, ())
        table.close()
        return {row.key.beam_id for row in found.rows}, dict(found.refused)

    @pytest.mark.parametrize("column", ["beam_path", "status", "hpc_job_id", "parent_case_id", "beam_id"])
    @pytest.mark.parametrize("value", ["x" * 5000, "\0" * 5000, b"x" * 5000])
    def test_only_the_row_with_a_too_long_value_is_refused(self, path: Path, column: str, value: object) -> None:
        db.add(path, "bad")
        db.execute(path, f"UPDATE beams SET {column} = ? WHERE beam_id = 'bad'", value)
        assert self.look(path) == ({"good"}, {"too_long": 1})

    def test_only_the_beginning_of_a_long_value_is_read(self, path: Path) -> None:
        db.execute(path, "UPDATE beams SET beam_path = ?", "x" * 1_000_000)
        table = BeamsTable(path)
        with table._use("read") as connection:
            [[value]] = connection.execute(f"SELECT {table_rows.bounded('beam_path')} FROM beams").fetchall()
        table.close()
        assert len(value) == TEXT_LIMIT_BYTES + 1

    @pytest.mark.parametrize("column", ["beam_path", "status", "beam_id", "hpc_job_id"])
    def test_only_the_row_with_a_value_above_the_sqlite_limit_is_refused(self, path: Path, column: str) -> None:
        db.add(path, "bad")
        # A process of its own: limits of SQLite's memory are those of a process.
        statement = f"UPDATE beams SET {column} = cast(zeroblob(100000000) AS TEXT) WHERE beam_id = 'bad'"
        subprocess.run(["sqlite3", path, statement], check=True, timeout=60)
        assert self.look(path) == ({"good"}, {"too_long": 1})

    def test_rows_with_long_values_are_read_up_to_a_total_size(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(table_rows, "ROWS_BYTES", 10_000)
        for number in range(10):
            db.add(path, f"b{number}")
            db.execute(path, "UPDATE beams SET beam_path = ? WHERE beam_id = ?", "x" * 3000, f"b{number}")
            db.execute(path, f"UPDATE beams SET updated_at = '2099-01-0{number}' WHERE beam_id = 'b{number}'")
        assert self.look(path)[0] == {"b9", "b8", "b7"}

    @pytest.mark.parametrize("also", [(), ("b5",)])
    def test_an_endless_view_is_interrupted(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, also: tuple[str, ...]
    ) -> None:
        monkeypatch.setattr(database_file, "READ_SECONDS", 0.2)
        db.execute(path, "DROP TABLE beams")
        db.execute(
            path,
            "CREATE VIEW beams AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT 'b' || i AS beam_id, 'c' AS parent_case_id, 'pending' AS status, '' AS updated_at FROM n",
        )
        with pytest.raises(DatabaseUnavailable) as caught:
            BeamsTable(path).rows(None, also)
        assert caught.value.kind == "too_slow"

    def test_an_endless_trigger_is_interrupted_and_releases_the_lock(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(beams_table, "WRITE_SECONDS", 0.2)
        db.execute(
            path,
            "CREATE TRIGGER endless AFTER UPDATE ON beams BEGIN INSERT INTO cases WITH RECURSIVE "
            "n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'x', 'x', 0 FROM n WHERE i < 0; END",
        )
        with pytest.raises(DatabaseUnavailable) as caught:
            BeamsTable(path).write([ProgressUpdate("good", 5.0)])
        assert caught.value.kind == "too_slow"
        assert db.progress(path, "good") == 0.0

    def test_a_long_read_ends_when_the_exporter_stops(self, path: Path) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        table = BeamsTable(path)
        with table._use("read") as connection:
            table.interrupt()
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                connection.execute(endless)

    def test_a_row_with_a_too_long_status_is_refused(self, path: Path) -> None:
        db.add(path, "odd", "s" * 256)
        assert self.look(path) == ({"good"}, {"too_long": 1})

    def test_of_too_many_rows_those_updated_last_are_read(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(table_rows, "ROWS_LIMIT", 2)
        for number in range(4):
            db.add(path, f"b{number}")
            db.execute(path, f"UPDATE beams SET updated_at = '2099-01-0{number + 1}' WHERE beam_id = 'b{number}'")
        assert self.look(path)[0] == {"b3", "b2"}

    def test_all_rows_can_be_read_however_many_there_are(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(table_rows, "ROWS_AT_ONCE", 2)
        for number in range(4):
            db.add(path, f"b{number}", "completed")
        with contextlib.closing(BeamsTable(path)) as table:
            assert [row.beam_id for row in table.iter_rows()] == ["good", "b0", "b1", "b2", "b3"]

    def test_only_the_last_refused_ids_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(discovery, "_REFUSED_KEPT", 2)
        refusals = discovery._Refusals()
        assert refusals.count({"a": "empty", "b": "empty", "c": "empty"}) == {"empty": 3}
        assert refusals.count({"c": "empty", "b": "empty"}) == {}
        assert refusals.count({"a": "empty"}) == {"empty": 1}


def test_the_number_of_files_in_all_folders_of_a_source_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_loop, "ENTRIES_LIMIT", 5)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"case{folder}_beam{number}.log").write_bytes(b"x")
    templates = [LogPathTemplate(f"{tmp_path}/{folder}/{{case_id}}_{{beam_id}}.log") for folder in ("a", "b")]
    settings = settings_from(f"base_directory: {tmp_path}\ndiscovery: {{kind: directory}}\n", "x.yaml")
    store = BeamStore(StoreRules(), NOW)
    source = LocalLogSource("local")
    loop = discovery_loop.DirectoryDiscoveryLoop(settings, source, templates, store, time.time)
    with capture_logs() as lines:
        loop.run_once()
    assert {beam.key.case_id for beam in store.snapshot(NOW).beams} == {"casea"}
    [line] = lines
    assert f"{tmp_path}/b and the folders before it have more than 5 files" in str(line["error"])


class TestConfiguration:
    def mistakes(self, text: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            settings_from(text, "x.yaml")
        return list(raised.value.mistakes)

    @pytest.mark.parametrize("line", ["key{}: 1\n", "key: {}\n"], ids=["unknown keys", "one key again and again"])
    def test_of_too_many_mistakes_the_first_are_reported(self, line: str) -> None:
        mistakes = self.mistakes("".join(line.format(number) for number in range(1000)))
        assert len(mistakes) == MISTAKES_LIMIT + 1
        assert mistakes[-1] == "x.yaml: there are more mistakes than these; is this the right file?"

    def test_the_number_of_sources_is_limited(self) -> None:
        sources = "".join(f"- {{name: s{number}, log_path: '/l/{{beam_id}}'}}\n" for number in range(SOURCES_LIMIT + 1))
        assert (
            f"x.yaml:3: sources: must have at most {SOURCES_LIMIT} item(s), not {SOURCES_LIMIT + 1}"
            in self.mistakes(f"database: {{path: /d}}\nbase_directory: /b\nsources:\n{sources}")
        )


class TestOwnLog:
    @pytest.mark.parametrize("render", [render_logfmt, render_json])
    def test_a_long_value_is_cut_in_its_middle(self, render: Callable[..., object]) -> None:
        line = render(None, "", {"msg": "bad", "text": "a" + "x" * 1_000_000 + "z", "error": ValueError("y" * 100_000)})
        assert isinstance(line, str)
        assert len(line) < 2 * VALUE_CHARACTERS + 200
        assert "ax" in line
        assert "xz" in line

    def test_log_lines_above_the_limit_per_minute_are_counted_instead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log_output, "LINES_PER_MINUTE", 5)
        now, stream = [0.0], io.StringIO()
        handler = log_output._Output(stream, False, lambda: now[0])

        def say(count: int) -> list[str]:
            for _ in range(count):
                handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "said", None, None))
            return stream.getvalue().splitlines()

        assert say(100) == ["said"] * 5
        now[0] = 61.0
        assert say(1)[5:] == ["log lines left out: 95, more than 5 came in a minute", "said"]
        now[0] = 130.0
        assert say(1)[7:] == ["said"]
