"""Discovery: finds beams in the communicator's table, or by the names of log files if there is no database.

Ids come from outside and become parts of paths and labels. An unusable id is refused, logged once and counted; other
beams are not affected.
"""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.database.table import Table
from exporter.database.table_rows import TableRow
from exporter.process.clock import UNSET_CLOCK, Timeline
from exporter.sources.source import LogStat

_ID_BYTES = 255
"""Longest id in bytes of UTF-8, as long as a file name may be."""

_OVERLAP_SECONDS = 5.0
"""Overlap of two reads: time stamps have whole seconds, and their writer may commit slightly later."""

_REFUSED_KEPT = 10_000
"""Refused ids that are remembered so that each is counted once."""

_SIBLINGS_SECONDS = 300.0
"""Interval at which all rows of the open cases are read again. In between, only cases that have just opened."""

_LONGEST_UNREAD_SECONDS = 30.0
"""Longest time between two reads, even if the files seem unchanged."""

_CONTROL_CHARACTER = re.compile("[\\x00-\\x1f\\x7f]")


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """Result of discovery.

    Args:
        rows: the beams that were found.
        refused: number of newly refused ids, by reason.
        missing: requested beams whose rows are gone.
    """

    rows: tuple[BeamRow, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    missing: frozenset[BeamKey] = frozenset()


def fault_of_id(value: object) -> str | None:
    """Return why ``value`` cannot be an id, in one word; ``None`` if it can."""
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


def fault_of_row(row: TableRow) -> str | None:
    """Return why a row cannot be used, in one word; ``None`` if it can."""
    if row.too_long or any(_is_long(text) for text in (row.status, row.hpc_job_id)):
        return "too_long"
    fault = fault_of_id(row.beam_id) or fault_of_id(row.case_id)
    if fault is None and not _is_utf8(f"{row.beam_id}{row.case_id}"):
        # A file name may hold such bytes, but no SQL statement can: reading the row again would always fail.
        return "not_utf8"
    return fault


def _is_long(text: str | None) -> bool:
    """Whether a status or job id is too long to become a label or part of a path."""
    return text is not None and len(text.encode("utf-8", "surrogateescape")) > _ID_BYTES


def _is_utf8(text: str) -> bool:
    """Whether the bytes were UTF-8. Other bytes are decoded to lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Refusals:
    """Counts each refused id once. It remembers the last :data:`_REFUSED_KEPT` ids."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def count(self, faults: Mapping[str, str]) -> Counter[str]:
        """Count the new ones by reason.

        Args:
            faults: reason by refused id.
        """
        new: Counter[str] = Counter()
        for refused, reason in faults.items():
            if (refused, reason) not in self._known:
                self._known[refused, reason] = None
                new[reason] += 1
        while len(self._known) > _REFUSED_KEPT:
            self._known.popitem(last=False)
        return new


class DatabaseDiscovery:
    """Finds beams in the table ``beams``.

    Args:
        table: the table.
        retention_seconds: the first read includes rows that were updated this long ago.
        timer: monotonic clock in seconds.
    """

    def __init__(self, table: Table, *, retention_seconds: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._timer = timer
        self._read: list[TableRow] = []
        self._read_at = float("-inf")
        self._requested: frozenset[str] = frozenset()
        self._changes = 0
        self._retention_seconds = retention_seconds
        self._last_at: float | None = None
        self._refusals = _Refusals()
        self._open_cases: frozenset[str] = frozenset()
        self._siblings_at: float | None = None

    def find_beams(self, at: float, watched: Collection[BeamKey], timeline: Timeline = UNSET_CLOCK) -> DiscoveryResult:
        """Read the open rows, the rows updated since the last call, and the rows of ``watched``.

        The other rows of open cases are read, too, however old they are, because case progress counts them. They come
        last. The database is not opened if its files have not changed since the last call.

        Args:
            at: the present instant.
            watched: beams whose end is not known yet.
            timeline: converts instants to the wall-clock times that rows hold.

        Raises:
            exporter.database.unavailable.DatabaseUnavailable: the table cannot be read. The next call includes what
                this one has missed.
        """
        wall, kept_since = timeline.to_wall(at), timeline.to_wall(at - self._retention_seconds)
        # After the clock was set back, new rows have time stamps from before the last call.
        since = kept_since if self._last_at is None else min(self._last_at, wall) - _OVERLAP_SECONDS
        requested = frozenset(key.beam_id for key in watched)
        if self._knows(requested):
            stored = [row for row in self._read if self._is_wanted(row, since, requested)]
        else:
            began = self._timer()
            self._read = self._table.rows(since, requested)
            if self._table.unexplained_changes != self._changes:
                # The database may have been restored, and rows of a backup have old time stamps.
                self._changes = self._table.unexplained_changes
                self._read = self._table.rows(kept_since, requested)
            stored = self._read + self._siblings(self._read, at)
            self._read_at, self._requested = began, requested
        self._last_at = wall
        rows, faults = [], {}
        for beam in stored:
            fault = fault_of_row(beam)
            if fault is None:
                rows.append(_row(beam, at))
            else:
                faults[f"{beam.case_id!r:.300} {beam.beam_id!r:.300}"] = fault
        there = {row.key for row in rows}
        return DiscoveryResult(tuple(rows), self._refusals.count(faults), frozenset(set(watched) - there))

    def _knows(self, requested: frozenset[str]) -> bool:
        """Whether the last read holds all requested rows and is certainly still true."""
        return (
            requested <= self._requested
            and self._timer() - self._read_at < _LONGEST_UNREAD_SECONDS
            and self._table.unchanged_since(self._read_at)
        )

    def _is_wanted(self, beam: TableRow, since: float, requested: frozenset[str]) -> bool:
        """Apply the condition of :meth:`Table.rows` to a row that was read before."""
        updated = beam.updated_at is not None and beam.updated_at >= since
        return updated or not self._table.is_terminal(beam.status) or beam.beam_id in requested

    def _siblings(self, stored: Sequence[TableRow], at: float) -> list[TableRow]:
        """Read the other rows of cases that have opened since the last call."""
        open_cases = frozenset(
            str(beam.case_id)
            for beam in stored
            if not self._table.is_terminal(beam.status) and fault_of_row(beam) is None
        )
        if self._siblings_at is None or at - self._siblings_at >= _SIBLINGS_SECONDS:
            self._open_cases, self._siblings_at = frozenset(), at
        opened = open_cases - self._open_cases
        known = {beam.beam_id for beam in stored}
        found = [beam for beam in self._table.rows_of_cases(opened) if beam.beam_id not in known] if opened else []
        self._open_cases = open_cases
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
    # The development plan's template repeats the case, because the communicator's beam ids begin with it.
    re.compile(r"(?P<case_id>.+)_(?P<beam_id>(?P=case_id)_.+)\.log"),
    re.compile(r"sim_(?P<case_id>.+)_(?P<beam_id>(?P=case_id)_.+)\.log"),
    re.compile(r"sim_(?P<beam_id>(?P<case_id>.+)_beam_[^_]+)\.log"),
    # A guess: it is wrong if the case id holds a `_`.
    re.compile(r"(?P<case_id>[^_]+)_(?P<beam_id>.+)\.log"),
)


_NAMES_AT_ONCE = 500
"""Names between two calls of ``between``."""


class DirectoryDiscovery:
    """Finds beams by the names of log files.

    Args:
        name_pattern: regular expression for whole file names with groups ``case_id`` and ``beam_id``; ``None`` for the
            built-in rules: ``<case>_<case>_<rest>.log``, with or without ``sim_`` before it (beam ``<case>_<rest>``),
            ``sim_<case>_beam_<n>.log`` (beam ``<case>_beam_<n>``), else ``<case>_<beam>.log`` split at the first ``_``.
    """

    def __init__(self, name_pattern: str | None = None) -> None:
        self._patterns = _DEFAULT_NAMES if name_pattern is None else (re.compile(name_pattern),)
        self._refusals = _Refusals()
        self._rows: dict[str, dict[str, BeamRow]] = {}
        self._open_cases: frozenset[str] = frozenset()
        self._siblings_at: float | None = None

    def find_beams(
        self,
        at: float,
        folders: Mapping[str, Mapping[str, LogStat]],
        between: Callable[[], object] = lambda: None,
        *,
        written_since: float = float("-inf"),
    ) -> DiscoveryResult:
        """Find the beams that the files of some folders name; other files are skipped.

        If two files name one beam, the one written last counts. A file that has not changed since the last call keeps
        its row object, which saves most of the work.

        Args:
            at: now, epoch seconds.
            folders: the regular files of each folder by name.
            between: called every few hundred names, because ten thousand names take a tenth of a second.
            written_since: epoch seconds. Older files are skipped. But if a case also has a newer file, its older ones
                are returned once, because case progress counts them.
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
        between: Callable[[], object],
    ) -> list[BeamRow]:
        """Return old files of cases that now have a recent one; all again every :data:`_SIBLINGS_SECONDS`."""
        cases = frozenset(key.case_id for key in newest)
        if self._siblings_at is None or at - self._siblings_at >= _SIBLINGS_SECONDS:
            self._open_cases, self._siblings_at = frozenset(), at
        opened, self._open_cases = cases - self._open_cases, cases
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
    """Make a row from the name and the modification time of a log."""
    return BeamRow(key, at, updated_at=stat.modified_at, log_path=f"{folder.rstrip('/')}/{name}")
