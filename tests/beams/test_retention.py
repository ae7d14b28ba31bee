"""What is remembered of beams that left the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.beams import retention as retirement
from exporter.beams.beam import Beam
from exporter.beams.beam_claims import decide_claim
from exporter.beams.retention import ForgottenBeams
from exporter.beams.rules import StatusRules, StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.sources.source import LogStat

AT = 1_800_000_000.0
RULES = StoreRules(max_beams=2, statuses=StatusRules(terminal=frozenset({"completed"})))


def row(number: int, status: str = "completed") -> BeamRow:
    # As a row is read: a text of its own, not the configuration's.
    return BeamRow(BeamKey("c", f"b{number}"), AT, status="".join(list(status)), updated_at=AT - 60)


def test_a_removed_beam_is_not_added_again_until_its_row_changes() -> None:
    left = ForgottenBeams()
    left.remember(Beam.new(row(1), AT), RULES)
    assert left.is_unchanged(row(1))
    assert not left.is_unchanged(replace(row(1), updated_at=AT))
    assert not left.is_unchanged(row(1, "pending"))
    assert not left.is_unchanged(row(2))


def test_a_returning_beam_continues_its_run_unless_its_row_begins_a_new_one() -> None:
    left = ForgottenBeams()
    left.remember(Beam.new(row(1), AT), RULES)
    numbers = [left.run_number(each, RULES.statuses) for each in (row(1), row(1, "pending"), row(2))]
    assert numbers == [1, 2, None]


def test_a_returning_beam_with_another_log_begins_a_new_run() -> None:
    left, beam = ForgottenBeams(), Beam.new(row(1), AT)
    decide_claim(beam, "local", "/log", LogStat(100, AT - 100), AT, RULES.statuses, modified_at=AT - 100)
    left.remember(beam, RULES)
    back = Beam.new(row(1), AT)
    decide_claim(back, "local", "/log", LogStat(100, AT - 100), AT, RULES.statuses, modified_at=AT - 100)
    assert not left.has_new_log(back)
    decide_claim(back, "local", "/log", LogStat(100, AT - 50), AT, RULES.statuses, modified_at=AT - 50)
    assert left.has_new_log(back)
    back.run_sequence.number += 1
    assert not left.has_new_log(back), "that has been counted"


def test_a_beam_that_is_removed_again_is_remembered_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retirement, "_KEPT", 0)
    left = ForgottenBeams()
    for number in (1, 2, 1, 3):
        left.remember(Beam.new(row(number), AT), RULES)
    assert [key.beam_id for key, _ in left.by_key.items()] == ["b1", "b3"]


def test_equal_statuses_of_removed_beams_share_one_text() -> None:
    left = ForgottenBeams()
    for number in (1, 2):
        left.remember(Beam.new(row(number), AT), RULES)
    assert len({id(retired.status) for _, retired in left.by_key.items()}) == 1
