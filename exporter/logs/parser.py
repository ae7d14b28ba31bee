"""From the bytes of one run's log to events.

Bytes may come in any slices: the events are those of the whole. A line ends with ``\\n``, ``\\r\\n`` or ``\\r`` and
counts when that has arrived. Colours and the prefixes of other programs are removed first
(:mod:`exporter.logs.line_prefix`). Lines come by the million a second when an exporter starts beside old logs, so most
are dropped before they become Python objects (:mod:`exporter.logs.prefilter`), unless a site has patterns of its own:
those are searched for in every line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from exporter.logs.batch_counter import BatchCounter
from exporter.logs.events import (
    Anomaly,
    BatchesAnnounced,
    BatchStarted,
    DialectRecognised,
    Event,
    RunFailed,
    RunSucceeded,
    SimulationProgress,
)
from exporter.logs.line_prefix import ESCAPE, Prefixes, PrefixFilter, without_escapes
from exporter.logs.line_rules import PREFIX_LENGTH, LineRule, to_text
from exporter.logs.patterns import FOREIGN_LINES, FOREIGN_MARKS, LINES
from exporter.logs.prefilter import candidate_lines, marks_in

LINE_LIMIT = 64 * 1024
"""Longest line in bytes; what is beyond is dropped (and counted), so that a log without newlines costs no memory."""

FOREIGN_LIMIT = 2048
"""Only so many bytes at either end of a line are searched for words of other writers: that bounds the time it takes."""

SITE_LIMIT = 4096
"""So many bytes of a line are searched for a site's own patterns, whose expressions may be slow."""


def _compile(patterns: Iterable[str]) -> tuple[re.Pattern[bytes], ...]:
    return tuple(re.compile(pattern.encode("utf-8", "surrogatepass")) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class SitePatterns:
    """A site's own patterns, searched anywhere in every line in addition to the built-in ones.

    They see a line as it stands in the log, with its prefixes but without colours.

    Attributes:
        total_batches: one group: batches in all.
        current_batch: one group, the batch that starts; or two, that and the batches in all.
        success: any match says that the run succeeded.
        failure: any match says that it failed (reason ``error``).
    """

    total_batches: tuple[re.Pattern[bytes], ...] = ()
    current_batch: tuple[re.Pattern[bytes], ...] = ()
    success: tuple[re.Pattern[bytes], ...] = ()
    failure: tuple[re.Pattern[bytes], ...] = ()

    @classmethod
    def of(
        cls,
        total_batches: Iterable[str] = (),
        current_batch: Iterable[str] = (),
        success: Iterable[str] = (),
        failure: Iterable[str] = (),
    ) -> SitePatterns:
        """Compile regular expressions.

        Raises:
            re.error: one is not a regular expression.
        """
        return cls(_compile(total_batches), _compile(current_batch), _compile(success), _compile(failure))

    def __bool__(self) -> bool:
        return bool(self.total_batches or self.current_batch or self.success or self.failure)

    @property
    def searches(self) -> list[Callable[[bytes, int, int], object]]:
        """Each says whether one of the patterns is in a line, from one place in it to another."""
        return [each.search for each in (*self.total_batches, *self.current_batch, *self.success, *self.failure)]

    def events(self, line: bytes) -> Iterator[Event]:
        """What the site's patterns find in ``line``; the batches in all beside a batch are announced by nobody."""
        total = next(_numbers(self.total_batches, line), None)
        begun = False
        for pattern in self.current_batch:
            if (match := pattern.search(line)) and (number := _number(match[1])) is not None:
                begun = True
                yield BatchStarted(number, _number(match[2]) if pattern.groups > 1 else total)
        if total is not None and not begun:
            yield BatchesAnnounced(total)
        if any(pattern.search(line) for pattern in self.success):
            yield RunSucceeded(to_text(line))
        if any(pattern.search(line) for pattern in self.failure):
            yield RunFailed("error", to_text(line))


def _has_long_line(data: bytes, start: int, end: int) -> bool:
    """Whether a line behind ``start`` is longer than allowed: some stretch of that length holds no newline."""
    while start + LINE_LIMIT < end:
        newline = data.rfind(b"\n", start + 1, start + LINE_LIMIT + 2)
        if newline < 0:
            return True
        start = newline
    return False


def foreign_events(line: bytes) -> tuple[Event, ...]:
    """What the first rule of another writer that says something finds in a line; nothing where none does."""
    for known in FOREIGN_LINES:
        match = known.pattern.search(line, 0, FOREIGN_LIMIT)
        if match is None and len(line) > FOREIGN_LIMIT:
            match = known.pattern.search(line, len(line) - FOREIGN_LIMIT)
        if match and (events := tuple(known.events(match))):
            return events
    return ()


def _numbers(patterns: Iterable[re.Pattern[bytes]], line: bytes) -> Iterator[int]:
    """What the first groups of those that are found in a line capture."""
    for pattern in patterns:
        if (match := pattern.search(line)) and (number := _number(match[1])) is not None:
            yield number


def _number(text: bytes | None) -> int | None:
    """A site's pattern may capture anything; what is no number says nothing."""
    return int(text) if text and text.isdigit() and len(text) <= 20 else None


@dataclass(slots=True)
class ParserState:
    """Where a parser is in a log: everything that it needs to go on, also in a next process.

    Attributes:
        matched: some pattern has matched since the beginning.
        unfinished: the last line's bytes, while its end has not arrived.
        skipping: the last line was too long, and its end has not arrived.
        family, mode, dialect: what has been recognised of the engine.
        prefixes: whether lines have prefixes.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}

    matched: bool = False
    unfinished: bytes = b""
    skipping: bool = False
    family: str | None = None
    mode: str | None = None
    dialect: str | None = None
    prefixes: PrefixFilter = field(default_factory=PrefixFilter)

    def copy(self) -> ParserState:
        """Return the same, which does not change with this one."""
        return replace(self, prefixes=replace(self.prefixes))


class TpsLogParser:
    """One run's log, in any slicing, to events; also the line-by-line interface of the development plan.

    Args:
        site: patterns to search for beside the built-in ones.
        state: where to go on; at the beginning of a log where none is given.

    Attributes:
        state: where it is.
    """

    __slots__ = ("_counter", "_site", "state")

    def __init__(self, site: SitePatterns | None = None, state: ParserState | None = None) -> None:
        self._site = site or None
        self.reset()
        if state is not None:
            self.state = state.copy()

    def reset(self) -> None:
        """Forget everything read: a new log begins."""
        self.state = ParserState()
        self._counter: BatchCounter | None = None

    @property
    def line_complete(self) -> bool:
        """The bytes fed so far end with a newline (or nothing was fed)."""
        return not self.state.unfinished and not self.state.skipping

    def feed(self, data: bytes, start: int = 0) -> list[Event]:
        """Take the log's next bytes.

        Args:
            data: bytes as read, cut anywhere.
            start: where the next bytes begin in ``data``: a megabyte need not be copied to leave out a few before it.

        Returns:
            What the lines say that are complete now, in their order.
        """
        if data.find(b"\0", start) >= 0:
            # A hole left by truncating a file that its writer goes on writing at its old offset. It may be a gigabyte:
            # translate() takes 1 ms for a MiB of it, replace() more than 20.
            data, start = data[start:].translate(None, b"\0"), 0
        if data.find(b"\r", start) >= 0:
            # "\r\n" becomes an empty line more, which says nothing.
            data = data.replace(b"\r", b"\n")
        if self.state.skipping:
            newline = data.find(b"\n", start)
            if newline < 0:
                return []
            start, self.state.skipping = newline + 1, False
        events: list[Event] = []
        first = data.find(b"\n", start)
        if first >= 0:
            # Colours may stand within a mark.
            marks = marks_in(data, start) if data.find(ESCAPE, start) < 0 else FOREIGN_MARKS
            # A mark may have been cut.
            self._take_line(
                self.state.unfinished + data[start:first], events, FOREIGN_MARKS if self.state.unfinished else marks
            )
            end = data.rfind(b"\n", first) + 1
            if end > first + 1:
                self._scan(data, first, end, events, marks)
            self.state.unfinished = data[end:]
        else:
            self.state.unfinished += data[start:]
        if len(self.state.unfinished) > LINE_LIMIT:
            self._cut_line(self.state.unfinished, events)
            self.state.unfinished, self.state.skipping = b"", True
        return events

    def parse_line(self, line: str | bytes) -> SimulationProgress | None:
        """Take one complete line (the plan's interface).

        Args:
            line: the line with or without its newline.

        Returns:
            Progress where the line says that a batch starts and how many there are is known, else ``None``.
        """
        encoded = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
        events: list[Event] = []
        for part in re.split(rb"[\r\n]", encoded.replace(b"\0", b"")):
            self._match(part, events)
        progress = None
        counter = self._line_counter()
        for event in events:
            if isinstance(event, BatchesAnnounced):
                counter.announce(event.total, event.particles_per_batch)
            elif isinstance(event, BatchStarted):
                counter.start(event.number, event.total)
                progress = counter.progress
        return progress

    @property
    def total_batches(self) -> int | None:
        """Batches in all, from the lines given to :meth:`parse_line`; may be set."""
        return self._line_counter().total

    @total_batches.setter
    def total_batches(self, total: int) -> None:
        self._line_counter().set_total(total)

    @property
    def current_batch(self) -> int:
        """The batch the lines given to :meth:`parse_line` are in, 1-based; 0 before the first."""
        return self._line_counter().started

    def _line_counter(self) -> BatchCounter:
        """Made when it is first asked for: only those who give single lines need one."""
        if self._counter is None:
            self._counter = BatchCounter()
        return self._counter

    def _scan(self, data: bytes, start: int, end: int, events: list[Event], marks: Sequence[bytes]) -> None:
        """Whole lines: those behind the newline at ``start``, until the one before ``end``."""
        if _has_long_line(data, start, end):
            for line in data[start + 1 : end - 1].split(b"\n"):
                self._take_line(line, events, marks)
            return
        if data.find(ESCAPE, start, end) >= 0:
            data, start = without_escapes(data[start:end]), 0
            end = len(data)
        raw = data
        if self.state.prefixes.prefixes is not Prefixes.ABSENT:
            data = self.state.prefixes.lines(data[start : end - 1]) + b"\n"
        if self._site is None:
            at, until = (start, end) if data is raw else (0, len(data))
            for line in candidate_lines(data, at, until, marks):
                self._match(line, events, marks)
            return
        seen = raw[start + 1 : end - 1].split(b"\n")
        stripped = seen if data is raw else data[1:-1].split(b"\n")
        wanted = {line for search in self._site.searches for line in seen if search(line, 0, SITE_LIMIT)}
        for line, shown_line in zip(stripped, seen, strict=True):
            if shown_line in wanted or line[:PREFIX_LENGTH] in LINES or any(mark in line for mark in marks):
                self._match(line, events, marks, shown_line)

    def _take_line(self, line: bytes, events: list[Event], marks: Sequence[bytes]) -> None:
        """A whole line, as it stands in the log."""
        if len(line) > LINE_LIMIT:
            self._cut_line(line, events)
        else:
            self._take_short_line(line, events, marks)

    def _cut_line(self, line: bytes, events: list[Event]) -> None:
        events.append(Anomaly("line_too_long"))
        self._take_short_line(line[:LINE_LIMIT], events, FOREIGN_MARKS)

    def _take_short_line(self, line: bytes, events: list[Event], marks: Sequence[bytes]) -> None:
        line = without_escapes(line)
        self._match(self.state.prefixes.line(line), events, marks, line)

    def _match(
        self, line: bytes, events: list[Event], marks: Sequence[bytes] = FOREIGN_MARKS, raw: bytes | None = None
    ) -> None:
        """Match a line without colours and prefixes; ``raw`` is the line with its prefixes, for the site's patterns."""
        before = len(events)
        for known in LINES.get(line[:PREFIX_LENGTH], ()):
            if match := known.pattern.match(line):
                self._recognise(known, events)
                events.extend(known.events(match))
                break
        # Also behind a line that says something: it may have been cut just there.
        if marks and any(mark in line for mark in marks):
            self._match_foreign(line, events, before)
        if self._site is not None:
            kinds = {type(event) for event in events[before:]}
            if BatchStarted in kinds:
                kinds.add(BatchesAnnounced)  # a batch's line counts: "(3 of 18 batches)" announces nothing
            events.extend(event for event in self._site.events((raw or line)[:SITE_LIMIT]) if type(event) not in kinds)
        if len(events) > before:
            self.state.matched = True

    def _match_foreign(self, line: bytes, events: list[Event], before: int) -> None:
        """Add what another writer says in a line, unless the engine gave a cause there.

        A bare ``error`` of the engine gives none: another writer's word replaces it.
        """
        told = [event for event in events[before:] if isinstance(event, RunFailed)]
        if any(event.reason != "error" for event in told):
            return
        foreign = foreign_events(line)
        if foreign:
            events[before:] = [*(event for event in events[before:] if event not in told), *foreign]

    def _recognise(self, line: LineRule, events: list[Event]) -> None:
        """Which dialect prints such a line: engine and way of simulating come together from several of them."""
        if line.family is None and line.mode is None:
            return
        if line.usual_mode is None or self.state.family is None:
            self.state.family = line.family or self.state.family
        if line.mode == "stat" or self.state.mode is None or (line.mode is not None and self.state.mode != "stat"):
            self.state.mode = line.mode or self.state.mode or line.usual_mode
        family, mode = self.state.family, self.state.mode
        if family is None or mode is None:
            return
        dialect = family if mode == "beam" else f"{family}-{mode}"
        if dialect != self.state.dialect:
            self.state.dialect = dialect
            events.append(DialectRecognised(dialect))
