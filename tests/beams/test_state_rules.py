"""The state of a beam is a pure function of the evidence, and holds until the instant that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.beams.attribution import LogAttribution, RowKnowledge
from exporter.beams.decisions import RULE_WORDS, Rule
from exporter.beams.output import OutputCheck
from exporter.beams.rules import StallRules, StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, OutputState
from exporter.beams.sources import SourceState
from exporter.beams.state_rules import Condition, Evidence, judge
from exporter.logs.events import BatchesAnnounced, BatchFinished, BatchStarted, Event, LogRead, RunFailed, RunSucceeded

NOW = 1_760_000_000.0
RULES = StoreRules(
    StallRules(factor=3, minimum_seconds=10, first_batch_seconds=60, buffered_seconds=500, timeout_seconds=300),
    output_sources=frozenset({"checked"}),
)
BATCHES: list[Event] = [BatchesAnnounced(18, 100), BatchStarted(1, 18)]


def run_of(*parts: list[Event], every_seconds: float = 5.0) -> BeamRun:
    """A run whose log brought these parts, the last of them at ``NOW``."""
    run, size = BeamRun(), 0
    for number, part in enumerate(parts):
        at = NOW - every_seconds * (len(parts) - 1 - number)
        size += 10
        for event in [*part, LogRead(size, line_complete=True, live=True)]:
            run.apply(event, at)
    return run


def evidence_of(run: BeamRun, status: str | None = "simulation_running", **known: Any) -> Evidence:
    row = BeamRow(BeamKey("case", "beam"), NOW, status=status, updated_at=NOW - 50)
    terminal = status in RULES.statuses.terminal
    evidence = Evidence(
        run=run,
        row=row,
        row_written_at=row.updated_at,
        row_knowledge=RowKnowledge.CURRENT,
        row_terminal_since=NOW if terminal else None,
        log=LogAttribution.CURRENT,
        log_source="local",
        more_to_read=False,
        waiting_since=NOW - 100,
        output=OutputCheck(),
        source=SourceState(last_poll_at=NOW + 10),
        state=BeamState.WAITING,
        state_since=NOW - 100,
        rules=RULES,
    )
    return evidence._replace(**known)


SILENT = run_of(BATCHES)
RAN = run_of(BATCHES, [BatchFinished(), BatchStarted(2, 18)])
DONE = run_of(BATCHES, [RunSucceeded("done")])
LOG_ONLY = run_of([])
NO_RUN = BeamRun()


def output(state: OutputState) -> OutputCheck:
    claimed_at = None if state in (OutputState.NOT_DUE, OutputState.SKIPPED) else NOW
    return OutputCheck(state=state, claimed_at=claimed_at)


@pytest.mark.parametrize(
    ("evidence", "after", "state", "since", "rule"),
    [
        (evidence_of(NO_RUN), 5, "waiting", -100, Rule.NO_RUN),
        (evidence_of(LOG_ONLY), 5, "starting", 0, Rule.NO_BATCH_YET),
        (evidence_of(SILENT), 60, "running", 0, Rule.PROGRESS),
        (evidence_of(SILENT), 61, "stalled", 60, Rule.NO_PROGRESS),
        (evidence_of(RAN), 15, "running", -5, Rule.PROGRESS),
        (evidence_of(RAN), 16, "stalled", 15, Rule.NO_PROGRESS),
        (evidence_of(RAN), 301, "expired", 300, Rule.LOG_SILENT),
        (evidence_of(RAN, state=BeamState.STALLED), 1, "running", 0, Rule.PROGRESS),
        (evidence_of(RAN, state=BeamState.RUNNING, state_since=NOW - 3), 1, "running", -3, Rule.PROGRESS),
        (evidence_of(DONE), 1, "succeeded", 0, Rule.LOG_SUCCEEDED),
        (evidence_of(run_of(BATCHES, [RunFailed("cuda", "no")])), 1, "failed", 0, Rule.LOG_FAILED),
        (evidence_of(RAN, "completed"), 1, "running", -5, Rule.PROGRESS),
        (evidence_of(RAN, "completed"), 2, "succeeded", -50, Rule.ROW_SUCCEEDED),
        (evidence_of(RAN, "failed"), 2, "failed", -50, Rule.ROW_FAILED),
        (evidence_of(RAN, "failed", more_to_read=True), 2, "running", -5, Rule.PROGRESS),
        (
            evidence_of(RAN, "failed", row_knowledge=RowKnowledge.OLDER_THAN_RUN),
            *(5, "running", -5, Rule.PROGRESS),
        ),
        (evidence_of(RAN, source=SourceState(down_since=NOW + 1)), 3, "unreachable", 1, Rule.SOURCE_DOWN),
        (evidence_of(NO_RUN, "failed", log=LogAttribution.PREVIOUS), 3, "failed", -50, Rule.ROW_FAILED),
        (
            evidence_of(DONE, log_source="checked", output=output(OutputState.PENDING)),
            *(1, "running", -5, Rule.OUTPUT_PENDING),
        ),
        (
            evidence_of(DONE, log_source="checked", output=output(OutputState.MISSING)),
            *(40, "failed", 30, Rule.OUTPUT_MISSING),
        ),
        (
            evidence_of(DONE, log_source="checked", output=output(OutputState.BLOCKED)),
            *(61, "stalled", 60, Rule.OUTPUT_BLOCKED),
        ),
        (
            evidence_of(DONE, log_source="checked", output=output(OutputState.FOUND)),
            *(1, "succeeded", 0, Rule.LOG_SUCCEEDED),
        ),
    ],
)
def test_each_rule_finds_its_state(evidence: Evidence, after: float, state: str, since: float, rule: Rule) -> None:
    condition = judge(evidence, NOW + after)
    assert (condition.state.value, condition.since - NOW, condition.rule) == (state, since, rule)


def test_a_row_and_a_log_that_disagree_for_a_minute_are_a_mismatch() -> None:
    evidence = evidence_of(DONE, "failed")
    assert [judge(evidence, NOW + after).status_mismatch for after in (1, 60, 61)] == [False, False, True]
    assert judge(evidence, NOW + 1).valid_until == NOW + 60


def test_every_rule_is_applied_somewhere() -> None:
    modules = (Path(__file__).parents[2] / "exporter" / "beams").glob("*.py")
    code = "".join(module.read_text(encoding="utf-8") for module in modules if module.name != "decisions.py")
    assert [rule.name for rule in Rule if f"Rule.{rule.name}" not in code] == []


def test_every_rule_is_explained_in_words() -> None:
    assert set(RULE_WORDS) == set(Rule)
    assert all(words.endswith(".") for words in RULE_WORDS.values())


RUNS = st.sampled_from(
    [
        NO_RUN,
        LOG_ONLY,
        SILENT,
        RAN,
        DONE,
        run_of(BATCHES, [RunFailed("cuda", "no")]),
        run_of(BATCHES, [BatchFinished()], [BatchFinished(), BatchFinished()], every_seconds=2.5),
    ]
)
SOURCES = st.builds(
    SourceState,
    down_since=st.one_of(st.none(), st.integers(-20, 20).map(lambda after: NOW + after)),
    last_poll_at=st.one_of(st.none(), st.integers(-20, 20).map(lambda after: NOW + after)),
)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    status = draw(
        st.sampled_from([None, "pending", "simulation_running", "postprocessing", "completed", "failed", "cancelled"])
    )
    evidence = evidence_of(
        draw(RUNS),
        status,
        log=draw(st.sampled_from(LogAttribution)),
        log_source=draw(st.sampled_from([None, "local", "checked"])),
        row_knowledge=draw(st.sampled_from(RowKnowledge)),
        more_to_read=draw(st.booleans()),
        output=output(draw(st.sampled_from([each for each in OutputState if each is not OutputState.NOT_CONFIGURED]))),
        source=draw(SOURCES),
        state=draw(st.sampled_from(BeamState)),
        state_since=NOW + draw(st.integers(-100, 0)),
    )
    if evidence.row_terminal_since is not None:
        terminal_since = NOW + draw(st.integers(-30, 10))
        evidence = evidence._replace(row_terminal_since=terminal_since)
    updated_at = draw(st.one_of(st.none(), st.integers(-60, 30)))
    return evidence._replace(row_written_at=None if updated_at is None else NOW + updated_at)


def without_deadline(condition: Condition) -> Condition:
    return condition._replace(valid_until=0.0)


@settings(max_examples=500, deadline=None)
@given(evidences(), st.integers(0, 800), st.floats(0.0, 1.0, exclude_max=True))
def test_a_condition_is_the_same_until_the_instant_that_it_names(evidence: Evidence, after: int, share: float) -> None:
    at = NOW + after / 2
    condition = judge(evidence, at)
    later = min(condition.valid_until, at + 1e4)
    later = at + share * (later - at)
    if later < condition.valid_until:
        assert without_deadline(judge(evidence, later)) == without_deadline(condition)
        assert judge(evidence, later).valid_until == condition.valid_until


@settings(max_examples=300, deadline=None)
@given(evidences(), st.integers(0, 800))
def test_judging_again_after_the_state_was_recorded_changes_nothing(evidence: Evidence, after: int) -> None:
    at = NOW + after / 2
    condition = judge(evidence, at)
    assert judge(evidence, at) == condition
    recorded = evidence._replace(state=condition.state, state_since=condition.since)
    assert without_deadline(judge(recorded, at)) == without_deadline(condition)
