"""The history of runs: what is found in it, and how a time is named."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from exporter.beams.dose import EngineTimes
from exporter.beams.snapshot import BeamKey, EndedRun, OutputFile
from exporter.persistence.history import HistoryUnavailable, RunHistory, parse_since
from exporter.persistence.store import StateStore
from exporter.privacy.encryption import Encryption
from tests.persistence.test_store import KEY, changes
from tests.support.world import World, captured, quick

NOW = 1_800_000_000.0
RUNS = [
    EndedRun(
        BeamKey("Doe", "Doe_1"),
        "local",
        1,
        "succeeded",
        None,
        NOW - 500,
        NOW - 300,
        dialect="smc",
        batches=18,
        particles=49350,
        seconds_per_batch=10.5,
        engine_times=EngineTimes(total_seconds=199.5),
        dose_path="/dose/Doe.dcm",
        output_file=OutputFile("/dose/Doe.dcm", 1024, NOW - 301),
    ),
    EndedRun(BeamKey("Roe", "Roe_1"), "hpc1", 1, "failed", "cuda", None, NOW - 200),
    EndedRun(BeamKey("Doe", "Doe_1"), "local", 2, "failed", "killed", NOW - 290, NOW - 100),
]


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def history(tmp_path: Path, request: pytest.FixtureRequest) -> RunHistory:
    encryption = None if request.param is None else Encryption(request.param)
    store = StateStore(tmp_path / "state.db", encryption)
    store.write(changes({}, runs=RUNS))
    store.close()
    return RunHistory(store.path, None if request.param is None else Encryption(request.param))


def test_all_runs_come_back_as_they_were_newest_first(history: RunHistory) -> None:
    assert history.runs() == RUNS[::-1]


def test_case_time_and_number_choose(history: RunHistory) -> None:
    assert history.runs(case_id="Doe") == [RUNS[2], RUNS[0]]
    assert history.runs(case_id="nobody") == []
    assert history.runs(since=NOW - 200) == [RUNS[2], RUNS[1]]
    assert history.runs(case_id="Doe", since=NOW - 200) == [RUNS[2]]
    assert history.runs(limit=1) == [RUNS[2]]
    assert history.runs(limit=1, wanted=lambda run: run.reason == "cuda") == [RUNS[1]]


def test_it_is_read_while_the_exporter_writes(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.db")
    history = RunHistory(store.path)
    for number in range(1, 4):
        store.write(changes({}, runs=[RUNS[0]]))
        assert len(history.runs()) == number
    store.close()


def test_reading_changes_nothing(history: RunHistory) -> None:
    before = history.path.read_bytes()
    history.runs()
    assert history.path.read_bytes() == before


def test_a_history_that_cannot_be_read_says_why(tmp_path: Path, history: RunHistory) -> None:
    with pytest.raises(HistoryUnavailable, match="does not exist yet"):
        RunHistory(tmp_path / "other.db").runs()
    with pytest.raises(HistoryUnavailable, match="another key"):
        RunHistory(history.path, Encryption(bytes(32))).runs()
    history.path.write_bytes(b"something else" * 1000)
    with pytest.raises(HistoryUnavailable, match="damaged"):
        history.runs()


def test_a_run_of_a_followed_log_has_its_numbers(tmp_path: Path) -> None:
    world = World(tmp_path, quick())
    world.row()
    world.look()
    data = captured("v2_b18")
    for start in range(0, len(data), 1000):
        world.write(data[start : start + 1000])
        world.look(5)
    for _ in range(8):
        world.look(1)
    [run] = world.store.collect_changes().ended
    assert (run.outcome, run.batches, run.particles, run.dialect) == ("succeeded", 18, 49350, "smc")
    assert run.seconds_per_batch is not None
    assert run.started_at is not None
    assert 0 < run.ended_at - run.started_at <= 5 * len(data) / 1000 + 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - 5400),
        ("24h", NOW - 86400),
        (" 7d ", NOW - 7 * 86400),
        ("2w", NOW - 14 * 86400),
        ("1800000000", NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T17:00:00+09:00", NOW),
    ],
)
def test_a_time_is_named_by_age_date_or_seconds(text: str, expected: float) -> None:
    assert parse_since(text, NOW) == expected


def test_a_date_alone_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TZ", "Asia/Seoul")
    time.tzset()
    try:
        assert parse_since("2027-01-15", NOW) == NOW - 17 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7x", "2027-13-01", "9" * 30, "-1d", "1e9"])
def test_what_names_no_time_is_refused_with_advice(text: str) -> None:
    with pytest.raises(ValueError, match="write an age"):
        parse_since(text, NOW)
