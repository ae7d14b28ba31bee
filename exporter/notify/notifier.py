"""Sends each message once to each destination, in a thread of its own.

A destination that does not accept a message is tried again with growing pauses for a day. Nothing here blocks anybody
else: snapshots are the only thing taken from the store, and what is not sent yet is found again after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from re import Pattern
from typing import Protocol

import structlog

from exporter.beams.snapshot import StoreSnapshot
from exporter.notify.messages import Message, write_message
from exporter.notify.occurrences import NotificationKind, Occurrence, OccurrenceFilter, find_occurrences, source_key
from exporter.privacy.identifiers import Identifiers, SafeText

_log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 900.0
GIVE_UP_SECONDS = 86400.0
OUTCOMES = ("sent", "failed", "dropped")
MAX_PENDING = 100
"""Messages that wait for one destination at most; those beyond are dropped and counted."""


class SendFailed(Exception):
    """A destination did not accept a message. The text holds no secret of its URL."""


@dataclass(frozen=True, slots=True)
class Destination:
    """One place that messages go to.

    Args:
        name: its name in the configuration, in log lines and in metrics.
        id: identifies the destination in the memory of sent messages; each URL of a name is a destination.
        kinds: what is sent there.
        cases: the ids of the cases that are sent, matched as a whole.
        send: sends a message; raises :class:`SendFailed`.
    """

    name: str
    id: str
    kinds: frozenset[NotificationKind]
    cases: Pattern[str]
    send: Callable[[Message], None]

    def wants(self, occurrence: Occurrence) -> bool:
        """Whether an occurrence is sent there."""
        case_id = occurrence.case_id
        return occurrence.kind in self.kinds and (case_id is None or self.cases.fullmatch(case_id) is not None)


class SentMessages(Protocol):
    """Remembers what has been sent, also over a restart."""

    def is_new(self, destination: str) -> bool:
        """Whether :meth:`remember` was never called for a destination."""

    def was_sent(self, destination: str, key: str) -> bool:
        """Whether a destination has got the message of this key."""

    def remember(self, destination: str, keys: Iterable[str]) -> None:
        """Remember that a destination has got these messages, or need not get them."""

    def forget(self, destination: str, key: str) -> None:
        """Forget a message whose cause is over: if the cause returns, the message is sent again."""

    def save(self) -> None:
        """Write what has not been written yet."""


class SentInMemory:
    """:class:`SentMessages` for an exporter without a state file: until it ends."""

    def __init__(self) -> None:
        self._sent: dict[str, set[str]] = {}

    def is_new(self, destination: str) -> bool:
        return destination not in self._sent

    def was_sent(self, destination: str, key: str) -> bool:
        return key in self._sent.get(destination, ())

    def remember(self, destination: str, keys: Iterable[str]) -> None:
        self._sent.setdefault(destination, set()).update(keys)

    def forget(self, destination: str, key: str) -> None:
        self._sent.get(destination, set()).discard(key)

    def save(self) -> None:
        pass


@dataclass(slots=True)
class _Pending:
    """A message that a destination has not accepted yet."""

    message: Message
    keys: Sequence[str]
    since: float
    due_at: float
    pause_seconds: float = FIRST_PAUSE_SECONDS


@dataclass(slots=True)
class _Outbox:
    pending: list[_Pending] = field(default_factory=list)
    failing: bool = False


class Notifier:
    """Finds what is worth a message, and sends it.

    Args:
        destinations: where messages go.
        snapshot: the beams as they are now.
        ready: whether every source has been polled; before that, nothing is sent.
        identifiers: how ids are shown.
        sent: what has been sent before.
        steady: seconds of a clock that nobody sets.
        counts: messages by name and outcome (``sent``, ``failed``, ``dropped``) so far; it is increased.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        snapshot: Callable[[], StoreSnapshot],
        ready: Callable[[], bool],
        identifiers: Identifiers,
        sent: SentMessages,
        steady: Callable[[], float],
        counts: dict[tuple[str, str], int] | None = None,
    ) -> None:
        self._destinations = destinations
        self._snapshot = snapshot
        self._ready = ready
        self._identifiers = identifiers
        self._sent = sent
        self._steady = steady
        self._filter = OccurrenceFilter()
        self._outboxes = {each.id: _Outbox() for each in destinations}
        self._counts = {} if counts is None else counts
        for each in destinations:
            for outcome in OUTCOMES:
                self._counts.setdefault((each.name, outcome), 0)

    def counts(self) -> dict[tuple[str, str], int]:
        """Messages by destination's name and outcome: ``sent``, ``failed`` (given up), ``dropped``."""
        return dict(self._counts)

    def step(self) -> float:
        """Find and send what is due.

        Returns:
            How many seconds to wait before the next step.
        """
        if not self._ready():
            return POLL_SECONDS
        snapshot, at = self._snapshot(), self._steady()
        found = find_occurrences(snapshot)
        due = self._filter.due(found, at)
        answering = [source_key(source.name) for source in snapshot.sources if source.up]
        for each in self._destinations:
            if self._sent.is_new(each.id):
                # What was over before the destination was configured is no news.
                self._sent.remember(each.id, [one.key for one in found if each.wants(one) and one.source is None])
            for key in answering:
                self._sent.forget(each.id, key)
            self._queue(each, due, snapshot.at, at)
            self._deliver(each)
        self._sent.save()
        return POLL_SECONDS

    def _queue(self, destination: Destination, due: Sequence[Occurrence], wall: float, at: float) -> None:
        outbox = self._outboxes[destination.id]
        wanted = [each for each in due if destination.wants(each)]
        waiting = {key for pending in outbox.pending for key in pending.keys}
        fresh = [
            each for each in wanted if each.key not in waiting and not self._sent.was_sent(destination.id, each.key)
        ]
        for kind in NotificationKind:
            same = [each for each in fresh if each.kind is kind]
            if not same:
                continue
            keys = [each.key for each in same]
            if len(outbox.pending) >= MAX_PENDING:
                self._count(destination, "dropped")
                self._sent.remember(destination.id, keys)
                continue
            message = write_message(same, self._identifiers, wall)
            outbox.pending.append(_Pending(message, keys, at, at))

    def _deliver(self, destination: Destination) -> None:
        outbox = self._outboxes[destination.id]
        for pending in list(outbox.pending):
            at = self._steady()
            if pending.due_at > at:
                continue
            try:
                destination.send(pending.message)
            except SendFailed as error:
                self._failed(destination, outbox, pending, error, at)
                continue
            outbox.pending.remove(pending)
            outbox.failing = False
            self._sent.remember(destination.id, pending.keys)
            self._count(destination, "sent")

    def _failed(
        self, destination: Destination, outbox: _Outbox, pending: _Pending, error: SendFailed, at: float
    ) -> None:
        """Try again later, or give up after a day."""
        if at - pending.since >= GIVE_UP_SECONDS:
            outbox.pending.remove(pending)
            self._sent.remember(destination.id, pending.keys)
            self._count(destination, "failed")
            _log.error("message given up", destination=destination.name, kind=pending.message.kind.value)
            return
        if not outbox.failing:
            outbox.failing = True
            _log.warning(
                "message not accepted, trying again",
                destination=destination.name,
                kind=pending.message.kind.value,
                error=SafeText(error),
            )
        pending.due_at = at + pending.pause_seconds
        pending.pause_seconds = min(2 * pending.pause_seconds, LONGEST_PAUSE_SECONDS)

    def _count(self, destination: Destination, outcome: str) -> None:
        self._counts[destination.name, outcome] += 1
