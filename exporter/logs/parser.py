"""Parses the bytes of one log into events.

The bytes may be cut anywhere: the events do not depend on it. A line ends with ``\\n``, ``\\r\\n`` or ``\\r`` and is
parsed when its end has arrived. Colours and the prefixes of other programs are removed first
(:mod:`exporter.logs.line_prefix`). At a start beside old logs, millions of lines arrive per second. The prefilter drops
most of them before they become Python objects (:mod:`exporter.logs.prefilter`). A site's own patterns are searched in
every line.
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
"""Longest line in bytes. The rest is dropped and counted, so that a log without newlines needs no memory."""

FOREIGN_LIMIT = 2048
"""Bytes at either end of a line that are searched for messages of other programs. This limits the time per line."""

SITE_LIMIT = 4096
"""Bytes of a line that are searched for a site's own patterns, which may be slow."""


def _compile(patterns: Iterable[str]) -> tuple[re.Pattern[bytes], ...]:
    return tuple(re.compile(pattern.encode("utf-8", "surrogatepass")) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class SitePatterns:
    """A site's own patterns, searched anywhere in every line in addition to the built-in rules.

    They see the line with its prefixes but without colours.

    Attributes:
        total_batches: patterns whose group 1 is the total number of batches.
        current_batch: patterns whose group 1 is the batch that starts; an optional group 2 is the total.
        success: patterns whose match means success.
        failure: patterns whose match means failure (reason ``error``).
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
        """Compile the patterns.

        Raises:
            re.error: one is not a valid regular expression.
        """
        return cls(_compile(total_batches), _compile(current_batch), _compile(success), _compile(failure))

    def __bool__(self) -> bool:
        return bool(self.total_batches or self.current_batch or self.success or self.failure)

    @property
    def searches(self) -> list[Callable[[bytes, int, int], object]]:
        """Return the search function of each pattern."""
        return [each.search for each in (*self.total_batches, *self.current_batch, *self.success, *self.failure)]

    def events(self, line: bytes) -> Iterator[Event]:
        """Yield the events of the patterns that match ``line``. A total beside a batch number is no announcement."""
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
    """Whether a line after ``start`` is longer than :data:`LINE_LIMIT`."""
    while start + LINE_LIMIT < end:
        newline = data.rfind(b"\n", start + 1, start + LINE_LIMIT + 2)
        if newline < 0:
            return True
        start = newline
    return False


def foreign_events(line: bytes) -> tuple[Event, ...]:
    """Return the events of the first rule for other programs that yields any; empty if none does."""
    for known in FOREIGN_LINES:
        match = known.pattern.search(line, 0, FOREIGN_LIMIT)
        if match is None and len(line) > FOREIGN_LIMIT:
            match = known.pattern.search(line, len(line) - FOREIGN_LIMIT)
        if match and (events := tuple(known.events(match))):
            return events
    return ()


def _numbers(patterns: Iterable[re.Pattern[bytes]], line: bytes) -> Iterator[int]:
    """Yield the number in group 1 of each pattern that matches the line."""
    for pattern in patterns:
        if (match := pattern.search(line)) and (number := _number(match[1])) is not None:
            yield number


def _number(text: bytes | None) -> int | None:
    """Convert what a site's pattern captured; ``None`` if it is not a number of at most 20 digits."""
    return int(text) if text and text.isdigit() and len(text) <= 20 else None


@dataclass(slots=True)
class ParserState:
    """A parser's position in a log: everything needed to continue, also in a new process.

    Attributes:
        matched: whether any rule or pattern has matched since the beginning of the log.
        unfinished: bytes of the last line if its end has not arrived.
        skipping: whether the last line was too long and its end has not arrived.
        family, mode, dialect: engine family, simulation mode and dialect as recognised so far.
        prefixes: removes line prefixes.
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
        """Return an independent copy."""
        return replace(self, prefixes=replace(self.prefixes))


class TpsLogParser:
    """Parses one log into events. It also has the line-by-line interface of the development plan.

    Args:
        site: a site's own patterns in addition to the built-in rules.
        state: position to continue from; ``None`` for the beginning of a log.

    Attributes:
        state: the current position.
    """

    __slots__ = ("_counter", "_site", "state")

    def __init__(self, site: SitePatterns | None = None, state: ParserState | None = None) -> None:
        self._site = site or None
        self.reset()
        if state is not None:
            self.state = state.copy()

    def reset(self) -> None:
        """Forget everything: a new log begins."""
        self.state = ParserState()
        self._counter: BatchCounter | None = None

    @property
    def line_complete(self) -> bool:
        """Whether the bytes fed so far end with a newline, or nothing was fed."""
        return not self.state.unfinished and not self.state.skipping

    def feed(self, data: bytes, start: int = 0) -> list[Event]:
        """Parse the next bytes of the log.

        Args:
            data: bytes as read, cut anywhere.
            start: offset of the next bytes in ``data``. It avoids copying a large block to skip a few bytes.

        Returns:
            The events of all lines that are complete now, in order.
        """
        if data.find(b"\0", start) >= 0:
            # A writer that continues at its old offset after a truncation leaves a hole of zero bytes.
            # translate() takes 1 ms per MiB, replace() more than 20 ms.
            data, start = data[start:].translate(None, b"\0"), 0
        if data.find(b"\r", start) >= 0:
            # "\r\n" makes an additional empty line, which matches no rule.
            data = data.replace(b"\r", b"\n")
        if self.state.skipping:
            newline = data.find(b"\n", start)
            if newline < 0:
                return []
            start, self.state.skipping = newline + 1, False
        events: list[Event] = []
        first = data.find(b"\n", start)
        if first >= 0:
            # A colour sequence may split a mark, so with colours every mark is assumed.
            marks = marks_in(data, start) if data.find(ESCAPE, start) < 0 else FOREIGN_MARKS
            # A mark may be cut between the unfinished line and the new bytes.
            self._parse_line(
                self.state.unfinished + data[start:first], events, FOREIGN_MARKS if self.state.unfinished else marks
            )
            end = data.rfind(b"\n", first) + 1
            if end > first + 1:
                self._parse_block(data, first, end, events, marks)
            self.state.unfinished = data[end:]
        else:
            self.state.unfinished += data[start:]
        if len(self.state.unfinished) > LINE_LIMIT:
            self._parse_cut_line(self.state.unfinished, events)
            self.state.unfinished, self.state.skipping = b"", True
        return events

    def parse_line(self, line: str | bytes) -> SimulationProgress | None:
        """Parse one complete line (interface of the development plan).

        Args:
            line: the line with or without its newline.

        Returns:
            The progress if the line starts a batch and the total is known, else ``None``.
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
        """Total number of batches from the lines given to :meth:`parse_line`. It can be set."""
        return self._line_counter().total

    @total_batches.setter
    def total_batches(self, total: int) -> None:
        self._line_counter().set_total(total)

    @property
    def current_batch(self) -> int:
        """Running batch, from 1, by the lines given to :meth:`parse_line`; 0 before the first."""
        return self._line_counter().started

    def _line_counter(self) -> BatchCounter:
        """Return the counter of :meth:`parse_line`, made at first use."""
        if self._counter is None:
            self._counter = BatchCounter()
        return self._counter

    def _parse_block(self, data: bytes, start: int, end: int, events: list[Event], marks: Sequence[bytes]) -> None:
        """Parse the complete lines from the newline at ``start`` to ``end``."""
        if _has_long_line(data, start, end):
            for line in data[start + 1 : end - 1].split(b"\n"):
                self._parse_line(line, events, marks)
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

    def _parse_line(self, line: bytes, events: list[Event], marks: Sequence[bytes]) -> None:
        if len(line) > LINE_LIMIT:
            self._parse_cut_line(line, events)
        else:
            self._parse_short_line(line, events, marks)

    def _parse_cut_line(self, line: bytes, events: list[Event]) -> None:
        events.append(Anomaly("line_too_long"))
        self._parse_short_line(line[:LINE_LIMIT], events, FOREIGN_MARKS)

    def _parse_short_line(self, line: bytes, events: list[Event], marks: Sequence[bytes]) -> None:
        line = without_escapes(line)
        self._match(self.state.prefixes.line(line), events, marks, line)

    def _match(
        self, line: bytes, events: list[Event], marks: Sequence[bytes] = FOREIGN_MARKS, raw: bytes | None = None
    ) -> None:
        """Add the events of a line without colours and prefixes. ``raw`` has the prefixes, for the site's patterns."""
        before = len(events)
        for known in LINES.get(line[:PREFIX_LENGTH], ()):
            if match := known.pattern.match(line):
                self._update_dialect(known, events)
                events.extend(known.events(match))
                break
        # Also after a match: the engine's line may be cut there and joined to another program's message.
        if marks and any(mark in line for mark in marks):
            self._match_foreign(line, events, before)
        if self._site is not None:
            kinds = {type(event) for event in events[before:]}
            if BatchStarted in kinds:
                kinds.add(BatchesAnnounced)  # "(3 of 18 batches)" starts a batch and announces none
            events.extend(event for event in self._site.events((raw or line)[:SITE_LIMIT]) if type(event) not in kinds)
        if len(events) > before:
            self.state.matched = True

    def _match_foreign(self, line: bytes, events: list[Event], before: int) -> None:
        """Add a failure that another program reports in this line, unless the engine gave a specific reason.

        The reason ``error`` is not specific: the other program's reason replaces it.
        """
        failures = [event for event in events[before:] if isinstance(event, RunFailed)]
        if any(event.reason != "error" for event in failures):
            return
        foreign = foreign_events(line)
        if foreign:
            events[before:] = [*(event for event in events[before:] if event not in failures), *foreign]

    def _update_dialect(self, line: LineRule, events: list[Event]) -> None:
        """Update the dialect: lines show the engine family or the simulation mode, and both together name it."""
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
