from __future__ import annotations

import time

from exporter.beams.snapshot import BeamState, BeamView, SourceView
from exporter.notify.messages import Message, write_message
from exporter.notify.occurrences import NotificationKind, find_occurrences
from exporter.privacy.identifiers import Identifiers, PlainIdentifiers
from exporter.sources.source import SourceUnavailable
from tests.web.store_snapshots import NOW, make_beam, make_snapshot


class Hidden(PlainIdentifiers):
    """Ids that must not be shown."""

    def case(self, case_id: str) -> str:
        return "c-1a2b"

    def beam(self, beam_id: str) -> str:
        return "b-3c4d"


def message(
    kind: NotificationKind,
    *beams: BeamView,
    sources: tuple[SourceView, ...] = (),
    identifiers: Identifiers | None = None,
) -> Message:
    found = [each for each in find_occurrences(make_snapshot(*beams, sources=sources)) if each.kind is kind]
    return write_message(found, identifiers or PlainIdentifiers(), NOW)


def test_a_case_that_is_done_says_when_its_last_beam_was() -> None:
    beams = [
        make_beam("A-12", f"b{number}", state=BeamState.SUCCEEDED, ended_at=NOW - 600 * number) for number in (1, 2, 3)
    ]
    last = time.strftime("%H:%M", time.localtime(NOW - 600))
    told = message(NotificationKind.CASE_DONE, *beams)
    assert (told.subject, told.body) == ("Case A-12 is done", f"All 3 beams are done, the last at {last}.")


def test_a_failed_beam_says_why_in_words_and_how_far_it_came() -> None:
    told = message(NotificationKind.BEAM_FAILED, make_beam("A-12", "b2", state=BeamState.FAILED, reason="cuda"))
    assert told.subject == "Case A-12, beam b2 failed"
    assert told.body == "Reason: the graphics card (GPU) reported an error\nBatches finished: 4 of 18."


def test_an_interruption_is_not_called_a_failure() -> None:
    told = message(NotificationKind.BEAM_FAILED, make_beam("A-12", "b2", state=BeamState.FAILED, reason="preempted"))
    assert told.subject == "Case A-12, beam b2 was interrupted"


def test_a_stalled_beam_says_since_when_nothing_moved() -> None:
    told = message(NotificationKind.BEAM_STALLED, make_beam("A-12", "b2", state=BeamState.STALLED))
    assert told.body.splitlines()[0].startswith("No progress since ")


def test_a_case_with_failures_names_the_beams_and_their_reasons() -> None:
    beams = [
        make_beam("A-12", "b1", state=BeamState.SUCCEEDED),
        make_beam("A-12", "b2", state=BeamState.FAILED, reason="killed"),
    ]
    told = message(NotificationKind.CASE_FAILED, *beams)
    assert told.subject == "Case A-12 ended with failures"
    assert told.body.splitlines()[0] == "1 of 2 beams are done."
    assert told.body.splitlines()[1].startswith("Beam b2: the simulation was killed")


def test_a_source_that_is_down_says_why() -> None:
    sources = (SourceView("hpc1", "ssh", up=False, problem=SourceUnavailable("login", "the host refused the key")),)
    told = message(NotificationKind.SOURCE_DOWN, sources=sources)
    assert told.subject == "Source hpc1 is down"
    assert "the host refused the key" in told.body


def test_many_of_a_kind_are_one_message_with_a_bounded_list() -> None:
    beams = [make_beam(f"c{number}", "b", state=BeamState.FAILED, reason="cuda") for number in range(50)]
    told = message(NotificationKind.BEAM_FAILED, *beams)
    assert told.subject == "50 beams failed"
    assert told.body.splitlines()[-1] == "and 30 more"


def test_ids_are_shown_as_pseudonyms_where_they_are_redacted() -> None:
    for kind, state in (
        (NotificationKind.CASE_DONE, BeamState.SUCCEEDED),
        (NotificationKind.CASE_FAILED, BeamState.FAILED),
        (NotificationKind.BEAM_FAILED, BeamState.FAILED),
        (NotificationKind.BEAM_STALLED, BeamState.STALLED),
    ):
        beam = make_beam("Kowalczyk", "Kowalczyk_1", state=state, reason="cuda", failure_text="at /home/Kowalczyk")
        told = message(kind, beam, identifiers=Hidden())
        assert "Kowalczyk" not in told.subject + told.body
        assert "c-1a2b" in told.subject
