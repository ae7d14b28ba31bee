"""Why a beam is in its state, in words, for beams that are really followed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.decisions import Rule
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.web.api_schema import RenderContext
from exporter.web.explanation import render_explanation
from tests.support.world import BEAM, FragileSource, World, captured, quick, upto


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick(), templates=("{beam_id}.log", "{hpc_job_id}.log"), source=FragileSource("local"))


def explain(world: World) -> Any:
    explanation = world.store.explain(BEAM, world.at)
    assert explanation is not None
    context = RenderContext.of(PlainIdentifiers(), world.snapshot())
    return render_explanation(explanation, world.poller.path_checks(BEAM), context)


def lines(world: World, title: str) -> list[str]:
    [section] = [each for each in explain(world)["sections"] if each["title"] == title]
    return list(section["lines"])


def test_a_beam_without_a_log_says_where_it_was_looked_for(world: World) -> None:
    world.row("simulation_running")
    world.look()
    assert lines(world, "Where the log may be") == [
        f"local {world.log()}: nothing is there.",
        "local: no path can be made: the row has no hpc_job_id.",
    ]
    assert any("no log was found at 2 places" in line for line in lines(world, "State"))
    assert lines(world, "Log") == ["No log has been found yet. [no_log]"]


def test_a_beam_whose_log_is_of_the_previous_run_says_so(world: World) -> None:
    world.write(captured("v2_b2"))
    world.look(60)
    world.row("pending", 0.0)
    world.look()
    assert explain(world)["explanation"]["log"] == "previous_by_date"
    said = lines(world, "Log")
    assert "By its date it belongs to the previous run, so nothing of it is shown." in said
    assert "The run in the log ended before the row was last changed. [log_older_than_row]" in said
    assert any(
        line.startswith("Why it waits: there is only the log of an earlier run") for line in lines(world, "State")
    )


def test_a_stalled_beam_says_since_when_and_when_it_will_be_judged_again(world: World) -> None:
    world.row()
    world.look()
    world.write(upto("v2_b18", b"(3 of 18"))
    world.look()
    world.look(100)
    explanation = explain(world)["explanation"]
    assert (explanation["state"], explanation["state_rule"]) == ("stalled", Rule.NO_PROGRESS.value)
    assert explanation["valid_until"] > world.at
    assert any("stalled after" in line for line in lines(world, "Log"))


def test_a_failed_beam_says_what_its_log_says(world: World) -> None:
    world.row()
    world.look()
    world.write(upto("v2_b18", b"(3 of 18") + b"GPUassert: out of memory f 3\n")
    world.look()
    said = lines(world, "State")
    assert any("(reason out_of_memory)" in line for line in said)
    assert "The log says: GPUassert: out of memory f 3" in said


def test_the_job_of_the_row_is_named(world: World) -> None:
    world.row("hpc_running")
    world.rows[BEAM] = replace(world.rows[BEAM], hpc_job_id="48211")
    world.look()
    assert "Job of the scheduler: 48211." in lines(world, "Row")
    assert explain(world)["explanation"]["hpc_job_id"] == "48211"
    assert lines(world, "Where the log may be")[1] == f"local {world.folder}/48211.log: nothing is there."


def test_a_row_that_is_older_than_the_run_says_so(world: World) -> None:
    world.row("completed", 100.0)
    world.write(captured("v2_b2"))
    world.look()
    world.look()
    world.write(upto("v2_b18", b"(1 of 18"))
    while world.poller.poll():  # before discovery reads the row again
        pass
    assert explain(world)["explanation"]["row_knowledge"] == "older_than_run"
    assert any(line.startswith("It was read before the current run began") for line in lines(world, "Row"))


def test_a_source_that_does_not_answer_is_named(world: World) -> None:
    world.row()
    world.look()
    assert isinstance(world.source, FragileSource)
    world.source.down = True
    world.look()
    assert any(line.startswith("local does not answer: ") for line in lines(world, "Where the log may be"))


def test_a_beam_of_an_earlier_process_says_that_its_log_was_not_read_yet(world: World) -> None:
    world.row()
    world.write(upto("v2_b18", b"(3 of 18"))
    world.look()
    world.restart()
    said = lines(world, "State")
    assert "This is the state before the exporter was restarted; the log has not been read since." in said
    assert any("by the exporter before its restart" in line for line in lines(world, "Row"))


def test_an_unknown_beam_has_no_explanation(world: World) -> None:
    assert world.store.explain(BEAM, world.at) is None
