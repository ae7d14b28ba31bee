from __future__ import annotations

from exporter.beams.snapshot import BeamState, SourceView
from exporter.notify.occurrences import HOLD_SECONDS, NotificationKind, OccurrenceFilter, find_occurrences
from tests.web.store_snapshots import make_beam, make_snapshot

DONE, FAILED, RUNNING = BeamState.SUCCEEDED, BeamState.FAILED, BeamState.RUNNING


def kinds(*states: BeamState) -> list[str]:
    beams = [make_beam(beam_id=f"b{number}", state=state) for number, state in enumerate(states)]
    return [each.kind.value for each in find_occurrences(make_snapshot(*beams, sources=()))]


def test_a_case_is_done_when_all_its_beams_are() -> None:
    assert kinds(DONE, DONE) == ["case_done"]


def test_a_case_with_an_open_beam_is_not_over() -> None:
    for state in (RUNNING, BeamState.WAITING, BeamState.STARTING, BeamState.UNREACHABLE, BeamState.EXPIRED):
        assert kinds(DONE, state) == []


def test_a_case_that_ended_with_a_failed_beam_has_failed_and_so_has_the_beam() -> None:
    assert kinds(DONE, FAILED) == ["beam_failed", "case_failed"]


def test_a_beam_that_failed_is_told_while_others_of_its_case_run() -> None:
    assert kinds(RUNNING, FAILED) == ["beam_failed"]


def test_a_stalled_beam_and_a_source_that_is_down_are_found() -> None:
    beam = make_beam(state=BeamState.STALLED)
    sources = (
        SourceView("hpc1", "ssh", up=False),
        SourceView("hpc2", "ssh", up=None),
        SourceView("local", "local", up=True),
    )
    found = find_occurrences(make_snapshot(beam, sources=sources))
    assert [(each.kind.value, each.source and each.source.name) for each in found] == [
        ("beam_stalled", None),
        ("source_down", "hpc1"),
    ]


def test_the_next_run_of_a_beam_is_another_occurrence_and_the_same_run_is_the_same() -> None:
    first, again, retry = (
        find_occurrences(make_snapshot(make_beam(state=FAILED, run_number=number), sources=()))[0].key
        for number in (1, 1, 2)
    )
    assert first == again != retry


def test_a_key_shows_no_id() -> None:
    [beam, case] = find_occurrences(make_snapshot(make_beam("Kowalczyk", "Kowalczyk_1", state=FAILED), sources=()))
    assert "kowalczyk" not in (beam.key + case.key).lower()


def test_what_holds_for_a_moment_only_is_not_told() -> None:
    held_back = OccurrenceFilter()
    [occurrence] = find_occurrences(make_snapshot(make_beam(state=DONE), sources=()))
    hold = HOLD_SECONDS[NotificationKind.CASE_DONE]
    assert held_back.due([occurrence], 1000.0) == []
    assert held_back.due([], 1000.0 + hold / 2) == []
    assert held_back.due([occurrence], 1000.0 + hold) == []
    assert held_back.due([occurrence], 1000.0 + 2 * hold) == [occurrence]
