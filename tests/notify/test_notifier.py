from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from exporter.beams.snapshot import BeamState, BeamView, SourceView, StoreSnapshot
from exporter.notify.messages import Message
from exporter.notify.notifier import GIVE_UP_SECONDS, MAX_PENDING, Destination, Notifier, SendFailed, SentInMemory
from exporter.notify.occurrences import NotificationKind
from exporter.privacy.identifiers import PlainIdentifiers
from tests.web.store_snapshots import make_beam, make_snapshot


class Site:
    """Beams and sources as they are now, and a destination that takes or refuses messages."""

    def __init__(self, sent: SentInMemory | None = None, cases: str = ".*") -> None:
        self.at = 1000.0
        self.beams: list[BeamView] = []
        self.source = SourceView("hpc1", "ssh", up=True)
        self.refuses = self.ready = False
        self.subjects: list[str] = []
        self.sent = sent or SentInMemory()
        destination = Destination("physics", "1", frozenset(NotificationKind), re.compile(cases), self.send)
        self.notifier = Notifier(
            [destination], self.snapshot, lambda: self.ready, PlainIdentifiers(), self.sent, lambda: self.at
        )

    def snapshot(self) -> StoreSnapshot:
        return make_snapshot(*self.beams, sources=(self.source,))

    def send(self, message: Message) -> None:
        if self.refuses:
            raise SendFailed("refused")
        self.subjects.append(message.subject)

    def pass_time(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until:
            self.at = min(until, self.at + max(1.0, self.notifier.step()))
        self.notifier.step()

    def counts(self) -> dict[str, int]:
        return {outcome: count for (_, outcome), count in self.notifier.counts().items() if count}


@pytest.fixture
def site() -> Site:
    """A site that has run for a minute, with nothing to tell."""
    made = Site()
    made.ready = True
    made.pass_time(60)
    return made


def test_each_message_is_sent_once(site: Site) -> None:
    site.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED)]
    site.pass_time(600)
    assert site.subjects == ["Case A is done"]
    assert site.counts() == {"sent": 1}


def test_a_retry_that_ends_is_told_again(site: Site) -> None:
    site.beams = [make_beam("A", "b1", state=BeamState.FAILED, reason="cuda")]
    site.pass_time(60)
    site.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED, run_number=2)]
    site.pass_time(60)
    assert site.subjects == ["Case A, beam b1 failed", "Case A ended with failures", "Case A is done"]


def test_what_was_over_before_the_destination_was_configured_is_no_news() -> None:
    site = Site()
    site.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED)]
    site.ready = True
    site.pass_time(600)
    assert site.subjects == []


def test_nothing_is_told_before_every_source_was_polled() -> None:
    site = Site()
    site.beams = [make_beam("A", "b1", state=BeamState.STALLED)]
    site.pass_time(60)
    assert site.subjects == []


def test_what_happened_while_the_exporter_was_stopped_is_told_at_the_next_start(site: Site) -> None:
    later = Site(site.sent)
    later.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED)]
    later.ready = True
    later.pass_time(60)
    assert later.subjects == ["Case A is done"]
    third = Site(site.sent)
    third.beams, third.ready = later.beams, True
    third.pass_time(60)
    assert third.subjects == []


def test_a_message_that_is_refused_is_sent_when_the_service_answers_again(site: Site) -> None:
    site.refuses = True
    site.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED)]
    site.pass_time(3600)
    assert (site.subjects, site.counts()) == ([], {})
    site.refuses = False
    site.pass_time(1800)
    assert (site.subjects, site.counts()) == (["Case A is done"], {"sent": 1})


def test_a_message_that_is_refused_for_a_day_is_given_up_and_counted(site: Site) -> None:
    site.refuses = True
    site.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED)]
    site.pass_time(GIVE_UP_SECONDS + 7200)
    site.refuses = False
    site.pass_time(7200)
    assert (site.subjects, site.counts()) == ([], {"failed": 1})


def test_messages_that_wait_are_bounded_and_those_beyond_are_counted(site: Site) -> None:
    site.refuses = True
    for number in range(MAX_PENDING + 10):
        site.beams = [make_beam("A", "b1", state=BeamState.STALLED, run_number=number)]
        site.pass_time(5)
    assert site.counts() == {"dropped": 10}


def test_a_source_that_goes_down_again_is_told_again(site: Site) -> None:
    for _ in range(2):
        site.source = SourceView("hpc1", "ssh", up=False)
        site.pass_time(600)
        site.source = SourceView("hpc1", "ssh", up=True)
        site.pass_time(60)
    assert site.subjects == ["Source hpc1 is down"] * 2


def test_a_short_reconnect_is_not_told(site: Site) -> None:
    site.source = SourceView("hpc1", "ssh", up=False)
    site.pass_time(60)
    site.source = SourceView("hpc1", "ssh", up=True)
    site.pass_time(600)
    assert site.subjects == []


def test_only_the_cases_of_a_destination_are_sent_there() -> None:
    site = Site(cases="A.*")
    site.ready = True
    site.pass_time(10)
    site.beams = [make_beam("A1", "b", state=BeamState.SUCCEEDED), make_beam("B1", "b", state=BeamState.SUCCEEDED)]
    site.pass_time(60)
    assert site.subjects == ["Case A1 is done"]


def test_one_destination_that_refuses_does_not_keep_messages_from_another() -> None:
    accepted: list[str] = []

    def refuse(message: Message) -> None:
        raise SendFailed("refused")

    def destination(name: str, send: Callable[[Message], None]) -> Destination:
        return Destination(name, name, frozenset(NotificationKind), re.compile(".*"), send)

    site = Site()
    both = [destination("first", refuse), destination("second", lambda message: accepted.append(message.subject))]
    site.notifier = Notifier(both, site.snapshot, lambda: True, PlainIdentifiers(), site.sent, lambda: site.at)
    site.pass_time(10)
    site.beams = [make_beam("A", "b1", state=BeamState.SUCCEEDED)]
    site.pass_time(60)
    assert accepted == ["Case A is done"]
