"""What is decided about beams is logged at debug level, with its rule and evidence, and without ids."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from exporter.privacy.pseudonyms import PseudonymKey, Pseudonyms
from exporter.runtime import log_output
from exporter.runtime.event_log import log_decision, logs_decisions
from tests.support.world import BEAM, World, captured, quick, upto


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log_output.configure("debug", "logfmt", stream)
    yield stream
    log_output.configure("info", "logfmt")
    structlog.reset_defaults()


def run_through(world: World) -> None:
    """A run that stalls, is reset, and is followed by another."""
    world.row("simulation_running")
    world.look()
    world.write(upto("v2_b18", b"(2 of 18"))
    world.look()
    world.look(100)
    world.row("pending", 0.0)
    world.look(1)
    world.row("simulation_running", 0.0)
    world.look(1)
    world.write(captured("v2_b2"), anew=True)
    world.look(1)


def test_every_decision_is_logged_with_its_rule(tmp_path: Path, lines: io.StringIO) -> None:
    world = World(tmp_path, quick())
    assert logs_decisions()
    world.store.keep_decisions(True)
    run_through(world)
    for decision in world.store.pop_decisions():
        log_decision(decision)
    said = [line for line in lines.getvalue().splitlines() if "msg=decision" in line]
    rules = [line.split("rule=")[1].split()[0] for line in said]
    assert rules == [
        "first_log",
        "log_not_read",
        "log_written_while_watched",
        "progress",
        "no_progress",
        "row_reset",
        "log_of_run_before_reset",
        "no_run",
        "row_of_same_run",
        "log_restarted",
        "log_succeeded",
    ]
    [stalled] = [line for line in said if "rule=no_progress" in line]
    assert f"beam={BEAM.beam_id}" in stalled
    assert "state=stalled state_before=running" in stalled
    assert "status=simulation_running" in stalled


def test_nothing_is_kept_where_nobody_logs_it(tmp_path: Path) -> None:
    world = World(tmp_path, quick())
    run_through(world)
    assert world.store.pop_decisions() == []


def test_decisions_name_no_ids_and_no_foreign_words_while_pseudonyms_are_used(
    tmp_path: Path, lines: io.StringIO
) -> None:
    world = World(tmp_path, quick())
    world.store.keep_decisions(True)
    world.row("for Thorvaldsdottir", 1.0)
    world.look()
    run_through(world)
    identifiers = Pseudonyms(PseudonymKey.of(b"a key that is long enough"))
    log_output.configure("debug", "logfmt", lines, identifiers=identifiers)
    for decision in world.store.pop_decisions():
        log_decision(decision)
    said = lines.getvalue()
    assert "case=case-" in said
    assert "beam=beam-" in said
    assert BEAM.case_id not in said
    assert "Thorvaldsdottir" not in said
