"""The tables of attribution: every cell that can occur, and that no other pair does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.beams.attribution import (
    LOG_DECISIONS,
    NEW_RUN_RULES,
    ROW_CHANGES,
    ROW_DECISIONS,
    LogAttribution,
    LogEvidence,
    LogNews,
    RowChange,
    RowKnowledge,
    RowPhase,
    decide_row,
)
from exporter.beams.beam import Beam
from exporter.beams.beam_claims import decide_claim
from exporter.beams.beam_reads import apply_events, correct_dates, reclaim_log
from exporter.beams.beam_rows import apply_row
from exporter.beams.decisions import Rule
from exporter.beams.rules import StatusRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.logs.events import (
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    Event,
    HistoriesGenerated,
    LogRead,
    LogReplaced,
    RunFailed,
    RunHead,
    RunSucceeded,
)
from exporter.sources.source import LogStat

NOW = 1_760_000_000.0
KEY = BeamKey("case", "beam")
STATUSES = StatusRules()
STATUS_OF = {
    RowPhase.NONE: None,
    RowPhase.RESET: "pending",
    RowPhase.ACTIVE: "tps_generation",
    RowPhase.SIMULATING: "simulation_running",
    RowPhase.POST_RUN: "postprocessing",
    RowPhase.TERMINAL: "failed",
}
HEAD: list[Event] = [RunHead("smc"), BatchesAnnounced(18, 100), BatchStarted(1, 18)]
BATCH: list[Event] = [BatchFinished(), BatchStarted(2, 18)]
END: list[Event] = [RunSucceeded("done")]


def row(phase: RowPhase, at: float, progress: float | None = None, updated_at: float | None = None) -> BeamRow:
    """A row in this phase, read at ``at``."""
    updated = at if updated_at is None else updated_at
    return BeamRow(KEY, at, status=STATUS_OF[phase], progress=progress, updated_at=updated)


def read(
    beam: Beam, events: list[Event], at: float, *, live: bool = True, more: bool = False, seen_after: float = 0.0
) -> bool:
    """One read of the log brings these events, written at ``at`` and read ``seen_after`` seconds later."""
    size = (beam.stat.size_bytes if beam.stat else 0) + 10 * len(events)
    beam.stat = LogStat(size, at)
    return apply_events(
        beam,
        [*events, LogRead(size, line_complete=True, live=live)],
        at,
        read_at=at + seen_after,
        more=more,
        statuses=STATUSES,
    )


def claimed(phase: RowPhase = RowPhase.SIMULATING, updated_at: float = NOW - 100) -> Beam:
    """A beam whose log was found, and has not been read."""
    beam = Beam.new(row(phase, NOW, 5.0, updated_at), NOW)
    assert decide_claim(beam, "local", "/a.log", LogStat(100, NOW), NOW, STATUSES, modified_at=NOW)
    return beam


def with_run(phase: RowPhase, *, ended: bool) -> Beam:
    """A beam with a run that was watched, and that the row knows; its log was written last at ``NOW + 10``."""
    beam = claimed(phase)
    read(beam, HEAD, NOW)
    read(beam, [*BATCH, *(END if ended else [])], NOW + 10)
    apply_row(beam, replace(beam.row, read_at=NOW + 11), NOW + 11, STATUSES)
    assert beam.row_knowledge is RowKnowledge.CURRENT
    return beam


PUT_BACK = {RowPhase.SIMULATING, RowPhase.POST_RUN, RowPhase.TERMINAL}
REVIVED = {RowPhase.ACTIVE, RowPhase.SIMULATING, RowPhase.POST_RUN}


def expected_row_rule(before: RowPhase, now: RowPhase, *, emptied: bool, ended: bool, written_since: bool) -> Rule:
    """What the documents say of a change of a row; independent of the tables."""
    if now is RowPhase.RESET and before in PUT_BACK:
        if ended:
            return Rule.ROW_RESET_AFTER_END
        return Rule.ROW_OLDER_THAN_LOG if written_since else Rule.ROW_RESET
    if before is RowPhase.TERMINAL and now in REVIVED:
        return Rule.ROW_OLDER_THAN_LOG if written_since else Rule.ROW_REVIVED
    waiting = now is RowPhase.RESET and before in (RowPhase.RESET, RowPhase.ACTIVE)
    running = now is before is RowPhase.SIMULATING and ended
    if emptied and (waiting or running):
        return Rule.ROW_OLDER_THAN_LOG if written_since else Rule.ROW_PROGRESS_EMPTIED
    return Rule.ROW_OF_SAME_RUN


@pytest.mark.parametrize("written_since", [False, True], ids=["log older", "log newer"])
@pytest.mark.parametrize("ended", [False, True], ids=["run open", "run ended"])
@pytest.mark.parametrize("emptied", [False, True], ids=["progress kept", "progress emptied"])
@pytest.mark.parametrize(("before", "now"), list(itertools.product(RowPhase, RowPhase)))
def test_each_change_of_a_row_begins_a_new_run_by_its_rule(
    before: RowPhase, now: RowPhase, emptied: bool, ended: bool, written_since: bool
) -> None:
    beam = with_run(before, ended=ended)
    number = beam.run_sequence.number
    updated_at = NOW + 5 if written_since else NOW + 30
    began = apply_row(beam, row(now, NOW + 40, 0.0 if emptied else 6.0, updated_at), NOW + 40, STATUSES)
    rule = expected_row_rule(before, now, emptied=emptied, ended=ended, written_since=written_since)
    assert beam.row_rule is rule
    assert began is (rule in NEW_RUN_RULES)
    assert beam.run_sequence.number == number + began
    assert beam.log is (LogAttribution.PREVIOUS if began else LogAttribution.CURRENT)


@pytest.mark.parametrize("change", [change for change in RowChange if change is not RowChange.NONE])
def test_every_change_of_a_row_has_a_decision_for_every_evidence(change: RowChange) -> None:
    assert {evidence for each, evidence in ROW_DECISIONS if each is change} == set(LogEvidence)
    assert change in ROW_CHANGES.values()


def test_a_row_that_was_read_before_the_run_was_seen_decides_nothing() -> None:
    beam = with_run(RowPhase.SIMULATING, ended=True)
    read(beam, HEAD, NOW + 20)
    assert known_of_row(beam) == (RowKnowledge.OLDER_THAN_RUN, None)
    assert not apply_row(beam, row(RowPhase.RESET, NOW + 19, 0.0, NOW + 19), NOW + 19, STATUSES)
    assert known_of_row(beam) == (RowKnowledge.OLDER_THAN_RUN, Rule.ROW_READ_BEFORE_RUN)
    assert not apply_row(beam, row(RowPhase.SIMULATING, NOW + 21, 0.0, NOW + 19), NOW + 21, STATUSES)
    assert known_of_row(beam) == (RowKnowledge.CURRENT, Rule.ROW_OF_SAME_RUN)


def known_of_row(beam: Beam) -> tuple[RowKnowledge, Rule | None]:
    return beam.row_knowledge, beam.row_rule


@pytest.mark.parametrize(
    ("log", "rule"),
    [
        (LogEvidence.OPEN_OLDER, Rule.ROW_RESET),
        (LogEvidence.OPEN_NEWER, Rule.ROW_OLDER_THAN_LOG),
        (LogEvidence.ENDED_OLDER, Rule.ROW_RESET),
        (LogEvidence.ENDED_NEWER, Rule.ROW_OLDER_THAN_LOG),
    ],
)
def test_a_reset_that_may_be_older_than_the_run_needs_a_log_that_was_not_written_since(
    log: LogEvidence, rule: Rule
) -> None:
    assert decide_row(RowChange.PUT_BACK, log, RowKnowledge.OLDER_THAN_RUN) is rule


# Logs: how a beam gets into each attribution, and what each news is.


def unread() -> Beam:
    beam = claimed()
    read(beam, HEAD, NOW, more=True)
    return beam


def current() -> Beam:
    return with_run(RowPhase.SIMULATING, ended=True)


def found_ended() -> Beam:
    """A log that had ended when it was first read, and is not older than its row."""
    beam = claimed()
    read(beam, [*HEAD, *END], NOW, live=False)
    return beam


def previous() -> Beam:
    beam = current()
    apply_row(beam, row(RowPhase.RESET, NOW + 40, 0.0), NOW + 40, STATUSES)
    apply_row(beam, row(RowPhase.SIMULATING, NOW + 50, 0.0), NOW + 50, STATUSES)
    return beam


def previous_by_date() -> Beam:
    beam = claimed(updated_at=NOW + 20)
    beam.row = replace(beam.row, read_at=NOW + 20)
    read(beam, [*HEAD, *END], NOW, live=False, seen_after=30.0)
    return beam


def previous_reread() -> Beam:
    beam = previous_by_date()
    read(beam, BATCH, NOW + 60)
    return beam


def undecided() -> Beam:
    beam = claimed()
    read(beam, HEAD, NOW)
    read(beam, [LogReplaced()], NOW + 10)
    return beam


def nothing() -> Beam:
    return Beam.new(row(RowPhase.SIMULATING, NOW), NOW)


IN: dict[LogAttribution, Callable[[], Beam]] = {
    LogAttribution.NONE: nothing,
    LogAttribution.UNREAD: unread,
    LogAttribution.CURRENT: current,
    LogAttribution.PREVIOUS: previous,
    LogAttribution.PREVIOUS_BY_DATE: previous_by_date,
    LogAttribution.PREVIOUS_REREAD: previous_reread,
    LogAttribution.UNDECIDED: undecided,
}


def row_completed(beam: Beam) -> None:
    apply_row(beam, row(RowPhase.SIMULATING, NOW + 70), NOW + 70, STATUSES)
    apply_row(beam, replace(row(RowPhase.TERMINAL, NOW + 71), status="completed"), NOW + 71, STATUSES)
    reclaim_log(beam, STATUSES, NOW + 80)


def another_log(beam: Beam) -> None:
    decide_claim(beam, "local", "/b.log", LogStat(50, NOW + 300), NOW + 300, STATUSES, modified_at=NOW + 300)


HAPPENS: dict[LogNews, Callable[[Beam], object]] = {
    LogNews.CLAIMED: another_log,
    LogNews.READ_LIVE: lambda beam: read(beam, BATCH, NOW + 5),
    LogNews.READ_NOT_OLDER: lambda beam: read(beam, BATCH, NOW + 5, live=False),
    LogNews.READ_OLDER: lambda beam: (
        apply_row(beam, row(RowPhase.SIMULATING, NOW + 60), NOW + 60, STATUSES),
        read(beam, END, NOW + 5, live=False),
    ),
    LogNews.REPLACED: lambda beam: read(beam, [LogReplaced()], NOW + 60),
    LogNews.NEW_RUN: lambda beam: read(beam, [LogReplaced(), *HEAD], NOW + 60),
    LogNews.SAME_RUN: lambda beam: read(beam, [BatchStarted(2, 18)], NOW + 60),
    LogNews.GREW_UNDER_RUNNING_ROW: lambda beam: read(beam, BATCH, NOW + 60),
    LogNews.ROW_BEGAN_RUN: lambda beam: apply_row(beam, row(RowPhase.RESET, NOW + 60, 0.0), NOW + 60, STATUSES),
    LogNews.DATE_OLDER: lambda beam: correct_dates(beam, 200.0, STATUSES),
    LogNews.DATE_NOT_OLDER: lambda beam: correct_dates(beam, -60.0, STATUSES),
    LogNews.ROW_COMPLETED: row_completed,
}

_L, _N = LogAttribution, LogNews
CELLS: list[tuple[LogAttribution, LogNews, LogAttribution, Rule]] = [
    (_L.NONE, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.UNREAD, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.UNREAD, _N.READ_LIVE, _L.CURRENT, Rule.LOG_WRITTEN_WHILE_WATCHED),
    (_L.UNREAD, _N.READ_NOT_OLDER, _L.CURRENT, Rule.LOG_NOT_OLDER_THAN_ROW),
    (_L.UNREAD, _N.READ_OLDER, _L.PREVIOUS_BY_DATE, Rule.LOG_OLDER_THAN_ROW),
    (_L.UNREAD, _N.REPLACED, _L.UNDECIDED, Rule.LOG_REPLACED),
    (_L.UNREAD, _N.ROW_BEGAN_RUN, _L.PREVIOUS, Rule.LOG_OF_RUN_BEFORE_RESET),
    (_L.CURRENT, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.CURRENT, _N.NEW_RUN, _L.CURRENT, Rule.LOG_RESTARTED),
    (_L.CURRENT, _N.REPLACED, _L.UNDECIDED, Rule.LOG_REPLACED),
    (_L.CURRENT, _N.ROW_BEGAN_RUN, _L.PREVIOUS, Rule.LOG_OF_RUN_BEFORE_RESET),
    (_L.PREVIOUS, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.PREVIOUS, _N.NEW_RUN, _L.CURRENT, Rule.LOG_RESTARTED),
    (_L.PREVIOUS, _N.GREW_UNDER_RUNNING_ROW, _L.PREVIOUS_REREAD, Rule.LOG_GROWS_UNDER_RUNNING_ROW),
    (_L.PREVIOUS_BY_DATE, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.PREVIOUS_BY_DATE, _N.NEW_RUN, _L.CURRENT, Rule.LOG_RESTARTED),
    (_L.PREVIOUS_BY_DATE, _N.GREW_UNDER_RUNNING_ROW, _L.PREVIOUS_REREAD, Rule.LOG_GROWS_UNDER_RUNNING_ROW),
    (_L.PREVIOUS_BY_DATE, _N.DATE_NOT_OLDER, _L.CURRENT, Rule.LOG_NOT_OLDER_THAN_ROW),
    (_L.PREVIOUS_BY_DATE, _N.ROW_COMPLETED, _L.CURRENT, Rule.ROW_COMPLETED_WITH_THIS_LOG),
    (_L.PREVIOUS_REREAD, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.PREVIOUS_REREAD, _N.NEW_RUN, _L.CURRENT, Rule.LOG_RESTARTED),
    (_L.PREVIOUS_REREAD, _N.GREW_UNDER_RUNNING_ROW, _L.PREVIOUS_REREAD, Rule.LOG_GROWS_UNDER_RUNNING_ROW),
    (_L.PREVIOUS_REREAD, _N.ROW_COMPLETED, _L.CURRENT, Rule.ROW_COMPLETED_WITH_THIS_LOG),
    (_L.UNDECIDED, _N.CLAIMED, _L.UNREAD, Rule.LOG_NOT_READ),
    (_L.UNDECIDED, _N.REPLACED, _L.UNDECIDED, Rule.LOG_REPLACED),
    (_L.UNDECIDED, _N.NEW_RUN, _L.CURRENT, Rule.LOG_RESTARTED),
    (_L.UNDECIDED, _N.SAME_RUN, _L.CURRENT, Rule.LOG_CONTINUES_AFTER_REPLACEMENT),
    (_L.UNDECIDED, _N.ROW_BEGAN_RUN, _L.CURRENT, Rule.LOG_RESTARTED),
]


@pytest.mark.parametrize(("before", "news", "now", "rule"), CELLS, ids=lambda each: each.value)
def test_each_news_attributes_a_log_by_its_rule(
    before: LogAttribution, news: LogNews, now: LogAttribution, rule: Rule
) -> None:
    beam = IN[before]()
    assert beam.log is before
    HAPPENS[news](beam)
    assert (beam.log, beam.log_rule) == (now, rule)
    assert_consistent(beam)


def test_a_log_whose_corrected_date_is_before_the_row_belongs_to_the_previous_run() -> None:
    beam = found_ended()
    assert beam.log is LogAttribution.CURRENT
    HAPPENS[LogNews.DATE_OLDER](beam)
    assert (beam.log, beam.log_rule) == (LogAttribution.PREVIOUS_BY_DATE, Rule.LOG_OLDER_THAN_ROW)


def test_a_second_run_within_the_first_read_leaves_the_log_unread() -> None:
    beam = claimed()
    read(beam, [*HEAD, *END, RunHead("smc")], NOW, more=True)
    assert (beam.log, beam.run_sequence.number) == (LogAttribution.UNREAD, 2)


def test_the_tables_hold_no_cell_that_is_not_tested() -> None:
    tested = {(before, news) for before, news, _, _ in CELLS}
    elsewhere = {(LogAttribution.CURRENT, LogNews.DATE_OLDER), (LogAttribution.UNREAD, LogNews.NEW_RUN)}
    assert LOG_DECISIONS.keys() == tested | elsewhere


def assert_consistent(beam: Beam) -> None:
    """What is true of every beam, whatever happened to it."""
    log = beam.log
    by_date = (LogAttribution.PREVIOUS_BY_DATE, LogAttribution.PREVIOUS_REREAD)
    assert (beam.source is None) is (log is LogAttribution.NONE)
    assert beam.run_sequence.undecided is (log is LogAttribution.UNDECIDED)
    assert beam.provisional_run is None or log in by_date
    assert beam.provisional_run is not None or log is not LogAttribution.PREVIOUS_BY_DATE
    assert not log.of_previous_run or beam.run.started_at is None, "nothing of a previous run is shown"
    assert beam.first_read is None or log in (LogAttribution.CURRENT, LogAttribution.PREVIOUS_BY_DATE)
    assert (beam.run_met_at is None) is (beam.row_knowledge is RowKnowledge.CURRENT)


EVENTS: st.SearchStrategy[list[Event]] = st.sampled_from(
    [
        HEAD,
        BATCH,
        END,
        [*HEAD, *BATCH, *END],
        [*END, *HEAD],
        [RunFailed("cuda", "no")],
        [RunFailed("preempted", "no"), RunHead("smc")],
        [LogReplaced()],
        [LogReplaced(), *HEAD],
        [LogReplaced(), BatchStarted(2, 18)],
        [BatchStarted(2, 18)],
        [HistoriesGenerated(3)],
        [],
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("read"), EVENTS, st.booleans(), st.booleans()),
    st.tuples(st.just("row"), st.sampled_from(RowPhase), st.sampled_from([0.0, 5.0, None]), st.integers(-60, 5)),
    st.tuples(st.just("claim"), st.sampled_from(["/a.log", "/b.log"]), st.integers(-60, 5), st.booleans()),
    st.tuples(st.just("dates"), st.integers(-100, 100), st.none(), st.none()),
    st.tuples(st.just("reclaim"), st.none(), st.none(), st.none()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(STEPS, st.sampled_from([0.0, 0.5, 3.0, 30.0, 100.0])), max_size=25))
def test_no_other_pair_of_attribution_and_news_occurs(steps: list[tuple[tuple[object, ...], float]]) -> None:
    """Any order of rows, logs, reads and corrected clocks: a pair that is not in the table would raise KeyError."""
    beam, at = Beam.new(row(RowPhase.SIMULATING, NOW), NOW), NOW
    for (kind, first, second, third), seconds in steps:
        at += seconds
        if kind == "row" and isinstance(first, RowPhase) and isinstance(third, int):
            progress = second if isinstance(second, float) else None
            apply_row(beam, row(first, at, progress, at + third), at, STATUSES)
        elif kind == "claim" and isinstance(second, int):
            decide_claim(
                beam,
                "local",
                str(first),
                LogStat(100, at + second),
                at,
                STATUSES,
                modified_at=at + second,
                written=bool(third),
            )
        elif kind == "dates" and isinstance(first, int) and beam.source is not None:
            correct_dates(beam, float(first), STATUSES)
        elif kind == "reclaim":
            reclaim_log(beam, STATUSES, at)
        elif kind == "read" and isinstance(first, list) and beam.source is not None:
            read(beam, first, at, live=bool(second), more=bool(third))
        assert_consistent(beam)


def test_the_documented_tables_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "developer" / "attribution.md").read_text(encoding="utf-8")
    cells = [
        tuple(part.strip(" `*") for part in line.strip("|").split("|")) for line in page.splitlines() if "|" in line
    ]
    for (before, now), change in ROW_CHANGES.items():
        assert (before.value, now.value, change.value) in cells
    for (change, evidence), rule in ROW_DECISIONS.items():
        assert (change.value, evidence.value, rule.value) in cells
    for (log, news), (after, rule) in LOG_DECISIONS.items():
        assert (log.value, news.value, after.value, rule.value) in cells
    assert len([each for each in cells if len(each) == 4 and each[0] in set(LogAttribution)]) == len(LOG_DECISIONS)
