"""The explanation why a beam waits."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from alerts.parameters import Parameters
from exporter.beams.rules import ATTENTION_SECONDS
from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, BeamView, SourceView
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.sources.source import SourceUnavailable
from exporter.web.waiting import WAITING_REASONS, explain_waiting, needs_attention
from tests.web.store_snapshots import NOW, make_beam, make_waiting_beam

LOCAL = SourceView("local", "local", up=True, last_poll_at=NOW, log_places=2)
HPC = SourceView("hpc1", "ssh", up=True, last_poll_at=NOW, log_places=1)
DOWN = replace(HPC, up=False, problem=SourceUnavailable("connect", "connection refused"))
UNPOLLED = SourceView("hpc2", "ssh")


def beam(status: str | None = "pending", *, updated_ago: float | None = 60.0, **changes: Any) -> BeamView:
    updated_at = None if updated_ago is None else NOW - updated_ago
    row = BeamRow(BeamKey("70010001", "b"), NOW, status=status, updated_at=updated_at)
    return make_waiting_beam(row=row, status_is_simulating=status == "simulation_running", **changes)


def said(view: BeamView, *sources: SourceView) -> tuple[str, str]:
    """Reason and words, without the time."""
    found = explain_waiting(view, sources, PlainIdentifiers())
    assert found is not None
    assert found.reason in WAITING_REASONS
    return found.reason, re.sub(r"since \d{4}-\d\d-\d\d \d\d:\d\d \w+", "since THEN", found.text)


def test_queued_beam_has_no_log_yet() -> None:
    assert said(beam(), LOCAL, HPC) == ("no_log", "no log yet")


def test_unreachable_host_is_named_and_its_logs_are_called_unknown() -> None:
    words = "hpc1 cannot be reached, so logs there are unknown"
    assert said(beam(), DOWN) == ("source_down", words)
    assert said(beam("simulation_running"), DOWN) == ("source_down", words)


def test_no_log_yet_is_claimed_only_for_sources_that_answered() -> None:
    words = "no log yet; hpc1 cannot be reached, so logs there are unknown"
    assert said(beam(), LOCAL, DOWN) == ("source_down", words)
    other = replace(DOWN, name="hpc3")
    assert "hpc1 and hpc3 cannot be reached" in said(beam(), LOCAL, DOWN, other)[1]


def test_source_that_was_never_polled_is_named() -> None:
    assert said(beam(), UNPOLLED) == ("not_polled", "hpc2 has not been polled yet")
    assert said(beam(), LOCAL, UNPOLLED) == ("no_log", "no log yet; hpc2 has not been polled yet")


@pytest.mark.parametrize(
    ("sources", "places"), [((LOCAL,), "2 places"), ((LOCAL, HPC), "3 places"), ((HPC,), "1 place")]
)
def test_simulating_row_without_a_log_has_a_reason_of_its_own(sources: tuple[SourceView, ...], places: str) -> None:
    words = f"MQI Communicator has said 'simulation running' since THEN, but no log was found at {places}"
    assert said(beam("simulation_running", updated_ago=4 * 86400.0), *sources) == ("no_log_while_running", words)


def test_places_on_an_unreachable_host_are_not_counted() -> None:
    assert "no log was found at 2 places; hpc1 cannot" in said(beam("simulation_running"), LOCAL, DOWN)[1]


def test_log_path_of_the_row_is_one_place() -> None:
    view = beam("simulation_running")
    view = view._replace(row=replace(view.row, log_path="/x.log"))
    assert "at 1 place" in said(view, LOCAL, HPC)[1]


def test_folder_that_does_not_exist_is_named() -> None:
    source = replace(HPC, folders_missing=("/data/lgos", "/more"))
    words = "no log yet; the folder /data/lgos does not exist on hpc1 (and 1 more)"
    assert said(beam(), LOCAL, source) == ("folder_missing", words)


def test_log_of_an_earlier_run_is_the_reason_to_wait() -> None:
    view = beam(log_path="/a.log", source="local", log_of_earlier_run=True)
    assert said(view, LOCAL) == ("log_of_earlier_run", "there is only the log of an earlier run")
    running = beam("simulation_running", log_path="/a.log", source="local", log_of_earlier_run=True)
    assert "'simulation running' since THEN, but there is only the log of an earlier run" in said(running, LOCAL)[1]


@pytest.mark.parametrize(("offset", "doubt"), [(None, True), (0.0, False), (-300.0, False)])
def test_attribution_by_date_with_an_unknown_clock_is_mentioned(offset: float | None, doubt: bool) -> None:
    view = beam(log_path="/a.log", source="hpc1", log_of_earlier_run=True, attributed_by_date=True)
    text = said(view, replace(HPC, clock_offset_seconds=offset))[1]
    assert text.startswith("there is only the log of an earlier run, older than the row's last change")
    assert ("the clock of hpc1 has not been compared yet" in text) is doubt


def test_unreadable_log_is_the_reason_to_wait() -> None:
    assert said(beam(log_path="/a.log", source="local"), LOCAL)[0] == "log_unreadable"


def test_beams_that_do_not_wait_are_not_explained() -> None:
    assert explain_waiting(make_beam(), (LOCAL,), PlainIdentifiers()) is None


@pytest.mark.parametrize("updated_ago", [-1e300, 1e300, float(NOW)])
def test_impossible_row_time_raises_nothing(updated_ago: float) -> None:
    assert "simulation running" in said(beam("simulation_running", updated_ago=updated_ago), LOCAL)[1]


@pytest.mark.parametrize(
    ("status", "updated_ago", "sources", "needed"),
    [
        ("simulation_running", ATTENTION_SECONDS - 1, (LOCAL,), False),
        ("simulation_running", ATTENTION_SECONDS, (LOCAL,), True),
        ("simulation_running", 4 * 86400.0, (LOCAL, DOWN), True),
        ("simulation_running", 4 * 86400.0, (DOWN,), False),
        ("pending", 4 * 86400.0, (LOCAL,), False),
    ],
)
def test_simulating_row_without_a_log_needs_attention_after_ten_minutes(
    status: str, updated_ago: float, sources: tuple[SourceView, ...], needed: bool
) -> None:
    assert needs_attention(beam(status, updated_ago=updated_ago), sources, NOW) is needed


@pytest.mark.parametrize("state", list(BeamState))
def test_failed_stalled_expired_and_unreachable_beams_need_attention(state: BeamState) -> None:
    trouble = state.value in {"failed", "stalled", "expired", "unreachable"}
    assert needs_attention(make_beam(state=state), (LOCAL,), NOW) is trouble


def test_alert_and_page_have_the_same_delay() -> None:
    assert Parameters().waiting_for_seconds == ATTENTION_SECONDS
