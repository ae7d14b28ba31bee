"""Every captured log says what `expected.csv` says a reader must find, and never shows what is impossible meanwhile."""

from __future__ import annotations

import pytest

from exporter.beams.run import BeamRun
from exporter.logs.events import LogRead
from exporter.logs.parser import TpsLogParser
from tests.support.replay import LOGS, accuracy, expected, names, replay, table


def reading(name: str) -> BeamRun:
    parser, run = TpsLogParser(), BeamRun()
    data = (LOGS / f"{name}.log").read_bytes()
    for event in parser.feed(data):
        run.apply(event, 0.0)
    run.apply(LogRead(len(data), parser.line_complete, live=False), 0.0)
    return run


@pytest.mark.parametrize("name", names())
def test_a_finished_log_ends_in_the_expected_state(name: str) -> None:
    run, row = reading(name), expected()[name]
    found = {
        "dialect": "" if run.dialect == "unknown" else run.dialect,
        "total_in_log": "" if run.batches.total is None else str(run.batches.total),
        "started_in_log": str(run.batches.started),
        "completed_in_log": str(run.batches.finished),
        "outcome_in_log": "failed" if run.failed else "succeeded" if run.succeeded else "none",
        "reason": run.reason or "",
    }
    assert found == {key: row[key] for key in found}
    assert not run.anomalies


@pytest.mark.parametrize("poll_seconds", [0.0, 0.5])
@pytest.mark.parametrize("name", names())
def test_a_growing_log_never_shows_an_impossible_state(name: str, poll_seconds: float) -> None:
    ratio = estimated = 0.0
    announcements = 0
    for sample, run in replay(name, poll_seconds):
        if sample.announcements != announcements:
            announcements, ratio, estimated = sample.announcements, 0.0, 0.0
        assert 0.0 <= ratio <= sample.ratio <= 1.0
        assert 0.0 <= sample.estimated <= 1.0
        assert sample.estimated < 1.0 or run.succeeded
        assert sample.estimated >= estimated - 1e-9 or run.buffered
        ratio, estimated = sample.ratio, sample.estimated


@pytest.mark.parametrize("name", ["v2_b18", "v2_bash_b18", "v2gpu_b100", "v2_sigkill"])
def test_estimates_of_many_batches_are_within_one_percent_on_average(name: str) -> None:
    found = accuracy(name)
    assert found is not None
    assert found.mean < 1.0
    assert found.mean_after_first is not None
    assert found.mean_after_first < 0.5


def test_the_accuracy_of_every_log_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{table()}")  # noqa: T201 - shown in the test's log
    assert "v2_b18" in table()
