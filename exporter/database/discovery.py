"""Which beams there are: the rows of the communicator's table, or the names of log files where there is no database.

Ids come from other people and become parts of paths and labels. What is no usable id is refused, said once and counted;
the others are not affected.
"""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.database.beams_table import BeamsTable, TableRow
from exporter.process.clock import UNSET_CLOCK, Timeline
from exporter.sources.source import LogStat

_ID_BYTES = 255
"""Longest id in bytes of UTF-8: as long as a file name may be."""

_SLACK_SECONDS = 5.0
"""Time stamps have whole seconds, and their writer may commit a moment later."""

_REFUSED_KEPT = 10_000

_WHOLE_SECONDS = 300.0
"""All rows of the open cases are read again so often. In between, only those of cases that have become open."""

_READ_AGAIN_SECONDS = 30.0
"""The rows are read so often even if the files seem to be unchanged."""

_CONTROL_CHARACTER = re.compile("[\\x00-\\x1f\\x7f]")


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """What discovery has found.

    Args:
        rows: the beams.
        refused: how many ids were refused for the first time, by reason.
        missing: beams asked for whose rows are gone.
    """

    rows: tuple[BeamRow, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    missing: frozenset[BeamKey] = frozenset()


def fault_of_id(value: object) -> str | None:
    """Why ``value`` cannot be an id, in one word; ``None`` where it can."""
    if not isinstance(value, str):
        return "not_text"
    if not value:
        return "empty"
    if "/" in value:
        return "path_separator"
    if ".." in value:
        return "parent_directory"
    if _CONTROL_CHARACTER.search(value):
        return "control_character"
    if len(value.encode("utf-8", "surrogateescape")) > _ID_BYTES:
        return "too_long"
    return None


def fault_of_row(beam: TableRow) -> str | None:
    """Why a row cannot be used, in one word; ``None`` where it can."""
    if beam.too_long or any(_is_long(text) for text in (beam.status, beam.hpc_job_id)):
        return "too_long"
    fault = fault_of_id(beam.beam_id) or fault_of_id(beam.case_id)
    if fault is None and not _is_utf8(f"{beam.beam_id}{beam.case_id}"):
        # A file name may be such bytes, but no statement can name the row again: asking for it would fail every look.
        return "not_utf8"
    return fault


def _is_long(text: str | None) -> bool:
    """Longer than any status or job id is; both become labels, parts of paths or words for people."""
    return text is not None and len(text.encode("utf-8", "surrogateescape")) > _ID_BYTES


def _is_utf8(text: str) -> bool:
    """Whether the bytes were UTF-8: what was not is held as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Refusals:
    """Counters each refused id once; forgets the oldest of very many."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def count(self, faults: Mapping[str, str]) -> Counter[str]:
        """How many are new, by reason; ``faults`` is by what was refused."""
        new: Counter[str] = Counter()
        for refused, reason in faults.items():
            if (refused, reason) not in self._known:
                self._known[refused, reason] = None
                new[reason] += 1
        while len(self._known) > _REFUSED_KEPT:
            self._known.popitem(last=False)
        return new


class DatabaseDiscovery:
    """Beams from the table ``beams``.

    Args:
        table: the table.
        retention_seconds: the first look reads rows that ended this long ago, too.
        timer: seconds of a clock that never steps.
    """

    def __init__(
        self, table: BeamsTable, *, retention_seconds: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._timer = timer
        self._read: list[TableRow] = []
        self._read_at = float("-inf")
        self._asked_for: frozenset[str] = frozenset()
        self._changes = 0
        self._retention_seconds = retention_seconds
        self._looked_at: float | None = None
        self._refusals = _Refusals()
        self._whole: frozenset[str] = frozenset()
        self._whole_since: float | None = None

    def find_beams(self, at: float, watched: Collection[BeamKey], timeline: Timeline = UNSET_CLOCK) -> DiscoveryResult:
        """Read the rows that are not over, those updated since the last look, and those of ``watched``.

        Of a case that has a row that is not over, the other rows are read, too, however old they are: case progress
        counts them. They come last.

        The database is not opened when its files are as they were at the last look: then its rows are, too.

        Args:
            at: the present instant.
            watched: beams whose end is not known yet.
            timeline: converts instants to the wall-clock times that rows hold.

        Raises:
            exporter.database.unavailable.DatabaseUnavailable: it cannot be read; the next look makes up for it.
        """
        wall, kept_since = timeline.to_wall(at), timeline.to_wall(at - self._retention_seconds)
        # After the clock was set back, new rows have time stamps from before the last look.
        since = kept_since if self._looked_at is None else min(self._looked_at, wall) - _SLACK_SECONDS
        asked_for = frozenset(key.beam_id for key in watched)
        if self._knows(asked_for):
            stored = [beam for beam in self._read if self._is_wanted(beam, since, asked_for)]
        else:
            began = self._timer()
            self._read = self._table.rows(since, asked_for)
            if self._table.unexplained_changes != self._changes:
                # Rows of a backup have old time stamps.
                self._changes = self._table.unexplained_changes
                self._read = self._table.rows(kept_since, asked_for)
            stored = self._read + self._siblings(self._read, at)
            self._read_at, self._asked_for = began, asked_for
        self._looked_at = wall
        rows, faults = [], {}
        for beam in stored:
            fault = fault_of_row(beam)
            if fault is None:
                rows.append(_row(beam, at))
            else:
                faults[f"{beam.case_id!r:.300} {beam.beam_id!r:.300}"] = fault
        there = {row.key for row in rows}
        return DiscoveryResult(tuple(rows), self._refusals.count(faults), frozenset(set(watched) - there))

    def _knows(self, asked_for: frozenset[str]) -> bool:
        """Whether the rows are certainly as they were read last, and all that are asked for were read."""
        return (
            asked_for <= self._asked_for
            and self._timer() - self._read_at < _READ_AGAIN_SECONDS
            and self._table.unchanged_since(self._read_at)
        )

    def _is_wanted(self, beam: TableRow, since: float, asked_for: frozenset[str]) -> bool:
        """What the query of :meth:`BeamsTable.rows` says, of a row that is known."""
        updated = beam.updated_at is not None and beam.updated_at >= since
        return updated or not self._table.is_terminal(beam.status) or beam.beam_id in asked_for

    def _siblings(self, stored: Sequence[TableRow], at: float) -> list[TableRow]:
        """The other rows of cases that have become open since the last look."""
        open_cases = frozenset(
            str(beam.case_id)
            for beam in stored
            if not self._table.is_terminal(beam.status) and fault_of_row(beam) is None
        )
        if self._whole_since is None or at - self._whole_since >= _WHOLE_SECONDS:
            self._whole, self._whole_since = frozenset(), at
        opened = open_cases - self._whole
        known = {beam.beam_id for beam in stored}
        found = [beam for beam in self._table.rows_of_cases(opened) if beam.beam_id not in known] if opened else []
        self._whole = open_cases
        return found


def _row(beam: TableRow, at: float) -> BeamRow:
    assert isinstance(beam.case_id, str)
    assert isinstance(beam.beam_id, str)
    return BeamRow(
        key=BeamKey(beam.case_id, beam.beam_id),
        read_at=at,
        beam_path=beam.beam_path,
        hpc_job_id=beam.hpc_job_id,
        status=beam.status,
        progress=beam.progress,
        updated_at=beam.updated_at,
    )


_DEFAULT_NAMES = (
    # The plan's template doubles the case, since the communicator's beam ids begin with it.
    re.compile(r"(?P<case_id>.+)_(?P<beam_id>(?P=case_id)_.+)\.log"),
    re.compile(r"sim_(?P<case_id>.+)_(?P<beam_id>(?P=case_id)_.+)\.log"),
    re.compile(r"sim_(?P<beam_id>(?P<case_id>.+)_beam_[^_]+)\.log"),
    # A guess: a case id that holds a `_` is split in its middle.
    re.compile(r"(?P<case_id>[^_]+)_(?P<beam_id>.+)\.log"),
)


_NAMES_AT_ONCE = 500


class DirectoryDiscovery:
    """Beams from the names of log files.

    Args:
        name_pattern: regular expression over whole file names with groups ``case_id`` and ``beam_id``; ``None`` for the
            built-in rules: ``<case>_<case>_<rest>.log``, with or without ``sim_`` before it (beam ``<case>_<rest>``),
            ``sim_<case>_beam_<n>.log`` (beam ``<case>_beam_<n>``), else ``<case>_<beam>.log`` split at the first ``_``.
    """

    def __init__(self, name_pattern: str | None = None) -> None:
        self._patterns = _DEFAULT_NAMES if name_pattern is None else (re.compile(name_pattern),)
        self._refusals = _Refusals()
        self._rows: dict[str, dict[str, BeamRow]] = {}
        self._whole: frozenset[str] = frozenset()
        self._whole_since: float | None = None

    def find_beams(
        self,
        at: float,
        folders: Mapping[str, Mapping[str, LogStat]],
        between: Callable[[], None] = lambda: None,
        *,
        written_since: float = float("-inf"),
    ) -> DiscoveryResult:
        """Take the regular files of each folder by name; other names than logs' are passed over.

        Where two files name one beam, the one written last is meant. A file that has not been written since the last
        look is answered with the very row of that: most of ten thousand are.

        Args:
            at: now, epoch seconds.
            folders: what is in each folder.
            between: called every few hundred names: ten thousand take a tenth of a second.
            written_since: epoch seconds. Older files are passed over, but those of a case that has a newer one are
                returned once: case progress counts them.
        """
        before, self._rows = self._rows, {folder: {} for folder in folders}
        newest: dict[BeamKey, BeamRow] = {}
        faults: dict[str, str] = {}
        old: list[tuple[str, str, LogStat]] = []
        for folder, files in folders.items():
            known, rows = before.get(folder, {}), self._rows[folder]
            for number, (name, stat) in enumerate(files.items()):
                if number % _NAMES_AT_ONCE == 0:
                    between()
                if stat.modified_at < written_since:
                    old.append((folder, name, stat))
                    continue
                row = known.get(name)
                if row is None:
                    key = self._key(name)
                    if key is None:
                        continue
                    fault = fault_of_id(key.case_id) or fault_of_id(key.beam_id)
                    if fault is not None:
                        faults[name] = fault
                        continue
                    row = _row_of_file(key, folder, name, stat, at)
                elif row.updated_at != stat.modified_at:
                    row = BeamRow(row.key, at, updated_at=stat.modified_at, log_path=row.log_path)
                rows[name] = row
                other = newest.setdefault(row.key, row)
                if other.updated_at is None or other.updated_at < stat.modified_at:
                    newest[row.key] = row
        siblings = self._siblings(newest, old, at, between)
        return DiscoveryResult((*newest.values(), *siblings), self._refusals.count(faults))

    def _siblings(
        self,
        newest: Mapping[BeamKey, BeamRow],
        old: Sequence[tuple[str, str, LogStat]],
        at: float,
        between: Callable[[], None],
    ) -> list[BeamRow]:
        """Old files of cases that have a recent one since the last look; again every :data:`_WHOLE_SECONDS`."""
        cases = frozenset(key.case_id for key in newest)
        if self._whole_since is None or at - self._whole_since >= _WHOLE_SECONDS:
            self._whole, self._whole_since = frozenset(), at
        opened, self._whole = cases - self._whole, cases
        found: dict[BeamKey, BeamRow] = {}
        for number, (folder, name, stat) in enumerate(old if opened else ()):
            if number % _NAMES_AT_ONCE == 0:
                between()
            key = self._key(name)
            if key is None or key.case_id not in opened or key in newest or fault_of_id(key.beam_id) is not None:
                continue
            other = found.get(key)
            if other is None or (other.updated_at or 0.0) < stat.modified_at:
                found[key] = _row_of_file(key, folder, name, stat, at)
        return list(found.values())

    def _key(self, name: str) -> BeamKey | None:
        for pattern in self._patterns:
            match = pattern.fullmatch(name)
            if match is not None:
                return BeamKey(match["case_id"] or "", match["beam_id"] or "")
        return None


def _row_of_file(key: BeamKey, folder: str, name: str, stat: LogStat, at: float) -> BeamRow:
    """What the name of a log tells of a beam."""
    return BeamRow(key, at, updated_at=stat.modified_at, log_path=f"{folder.rstrip('/')}/{name}")
