"""Rounds of work on what lies around the logs: the communicator's table, and the folders of logs.

What goes wrong with the database is said once, until it is right again; the metrics of the beams do not depend on it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from exporter.beams.snapshot import BeamRow, DatabaseView, Summary
from exporter.beams.store import BeamStore
from exporter.config import DatabaseSettings, Settings
from exporter.database.beams_table import BeamsTable
from exporter.database.database_file import DatabaseFile
from exporter.database.discovery import DatabaseDiscovery, DirectoryDiscovery
from exporter.database.mirror import OUTCOMES, Mirror
from exporter.database.unavailable import DatabaseUnavailable
from exporter.privacy.identifiers import Identifiers, SafeText
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import ENTRIES_LIMIT, LogProblem, LogSource, LogStat, SourceUnavailable

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.25
"""Between two looks of the mirror at the store, however much happens there that is not worth writing."""
_RETRY_SECONDS = 1.0
"""Between two looks while the database takes nothing: what waits shall be counted."""
_CLOCK_SECONDS = 1.0
"""Between two looks where estimates are written: those move with the clock."""
_IDLE_SECONDS = 10.0
"""Between two looks else: the store tells of all that matters, but for a row that somebody else has written to."""
_ROUNDS_WITHOUT_LISTING = 15
_ROUNDS_UNTIL_SURE = 3


class NameRounds:
    """Finds beams by the names of log files; called in the thread of their source.

    Args:
        settings: the configuration, with ``discovery.kind: directory``.
        source: where the folders are.
        templates: their folders are listed.
        store: told what is found.
        identifiers: how ids are shown in log lines.
        clock: UTC epoch seconds.
        names_changed: says whether names in folders may be others than when it was asked last.
    """

    def __init__(
        self,
        settings: Settings,
        source: LogSource,
        templates: Iterable[LogPathTemplate],
        store: BeamStore,
        identifiers: Identifiers,
        clock: Callable[[], float],
        names_changed: Callable[[Collection[str]], bool] = lambda _: True,
    ) -> None:
        self._discovery = DirectoryDiscovery(settings.discovery.name_pattern)
        self._source = source
        self._folders = sorted({template.folder for template in templates})
        self._store = store
        self._identifiers = identifiers
        self._clock = clock
        self._interval_seconds = settings.discovery.interval_seconds
        self._kept_seconds = settings.failed_retention_seconds
        self._due_at = float("-inf")
        self._said: dict[str, str] = {}
        self._names_changed = names_changed
        self._marks: tuple[object, ...] = ()
        self._rounds_alike = 0
        self._rounds_unlisted = 0

    def discover(self, between: Callable[[], None] = lambda: None) -> None:
        """List the folders, if it is time to.

        A listing asks the kernel for every file, so it is left out where no name can have come or gone: nobody has
        announced one, or the folders' own time stamps are old and have not moved. A log that was forgotten and grows
        again changes no name: a listing once in a while finds it.

        Args:
            between: called now and then, for what must not wait until thousands of names have been looked at.
        """
        at, moved_seconds = self._store.moment(self._clock)
        unmoved_at = at - moved_seconds  # the interval is as long when the clock is set
        if unmoved_at < self._due_at:
            return
        self._due_at = unmoved_at + self._interval_seconds
        if not self._may_have_changed():
            return
        folders: dict[str, Mapping[str, LogStat]] = {}
        room = ENTRIES_LIMIT
        for folder in self._folders:
            folders[folder] = self._files(folder, room)
            room -= len(folders[folder])
        # Files that a beam on the store could still have: logs of years may lie there.
        by_their_clock = at + (self._store.clock_offset_seconds(self._source.name) or 0.0)
        look = self._discovery.find_beams(at, folders, between, written_since=by_their_clock - self._kept_seconds)
        self._store.count_refused(look.refused)
        between()
        self._store.update_rows(look.rows, (), at, moved_seconds=moved_seconds)

    def _may_have_changed(self) -> bool:
        perhaps = self._names_changed(self._folders)
        changed = perhaps
        if perhaps and isinstance(self._source, LocalLogSource):
            marks = tuple(self._source.folder_stamp(folder) for folder in self._folders)
            self._rounds_alike = self._rounds_alike + 1 if marks == self._marks and None not in marks else 0
            self._marks = marks
            # What came within the granularity of a time stamp (2 s at most) shows in the round after it.
            changed = self._rounds_alike < _ROUNDS_UNTIL_SURE
        self._rounds_unlisted += 1
        if changed or self._rounds_unlisted >= _ROUNDS_WITHOUT_LISTING:
            self._rounds_unlisted = 0
            return True
        return False

    def _files(self, folder: str, most: int) -> Mapping[str, LogStat]:
        """The files of a folder; none where it cannot be listed, or has more than ``most`` of them."""
        try:
            listing = self._source.listing(folder)
            if len(listing) > most:
                raise LogProblem(
                    "too_many",
                    f"{folder} and the folders before it have more than {ENTRIES_LIMIT} files",
                    "move old logs to another place",
                )
        except (LogProblem, SourceUnavailable) as problem:
            if self._said.get(folder) != problem.kind:
                self._said[folder] = problem.kind
                _log.warning(
                    "folder of logs cannot be listed",
                    source=self._source.name,
                    error=self._identifiers.problem(problem),
                )
            return {}
        self._said.pop(folder, None)
        return listing


class TableRounds:
    """Discovery in the table and the mirror of progress in it, each called in a thread of its own.

    Args:
        settings: the configuration, with a database.
        store: told which beams there are, and how the database is.
        identifiers: how ids are shown in log lines.
        clock: UTC epoch seconds.
        before: the rounds until a reload; the mirror goes on where it was if its settings are the same.
        poll_logs: has every source look at its logs now, as far as that is quickly done.
    """

    def __init__(
        self,
        settings: Settings,
        database: DatabaseSettings,
        store: BeamStore,
        identifiers: Identifiers,
        clock: Callable[[], float],
        before: TableRounds | None = None,
        poll_logs: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._identifiers = identifiers
        self._clock = clock
        same = before is not None and _same_mirror(before._settings, settings)
        self._file: DatabaseFile = before._file if before is not None and same else _file(database)
        self._reading = _table(settings, self._file)
        self._discovery = DatabaseDiscovery(self._reading, retention_seconds=settings.retention_seconds)
        self._health: _Health = _Health(store, identifiers) if before is None else before._health
        self._writing: BeamsTable | None = None
        self._mirror: Mirror | None = None
        self._migrated_generation: int | None = None
        self._not_before = -math.inf
        self._poll_logs = poll_logs
        self._held_back = False
        if settings.mirror.enabled:
            self._keep_mirror(before)

    def _keep_mirror(self, before: TableRounds | None) -> None:
        settings = self._settings
        if before is not None and before._mirror is not None and _same_mirror(before._settings, settings):
            self._writing, self._mirror = before._writing, before._mirror
            return
        mirror = settings.mirror
        self._writing = _table(settings, self._file)
        self._mirror = Mirror(
            self._writing,
            terminal_statuses=settings.discovery.terminal_statuses,
            completed_statuses=settings.discovery.completed_statuses,
            reset_statuses=settings.discovery.reset_statuses,
            value=mirror.value,
            value_range=mirror.range,
            minimum_interval_seconds=mirror.minimum_interval_seconds,
            throttle_percent=settings.progress_tracking.monitoring.update_throttle_percent,
            timer=time.perf_counter,
        )

    def discover(self) -> None:
        """Read the rows once."""
        at, moved_seconds = self._store.moment(self._clock)
        try:
            look = self._discovery.find_beams(at, self._store.keys())
        except DatabaseUnavailable as error:
            self._health.said("discovery", error)
            return
        self._health.said("discovery", None)
        if look.refused:
            _log.warning("ids refused: they cannot be part of a path or a label", **look.refused)
        self._store.count_refused(look.refused)
        rows = [self._cleared(row) for row in look.rows]
        self._store.update_rows(rows, look.missing, at, moved_seconds=moved_seconds)

    def _cleared(self, row: BeamRow) -> BeamRow:
        """A status becomes a label, and anything may stand in one: only known ones matter to the store."""
        shown = row.status if row.status is None else self._identifiers.status(row.status)
        return row if shown == row.status else replace(row, status=shown)

    def mirror(self, *, now: bool = False) -> float:
        """Write what is due. May be called whenever the store has news: it looks there no more often than it must.

        Args:
            now: all of it at once (at the end).

        Returns:
            Seconds until the next round, unless there are news.
        """
        assert self._mirror is not None, "the mirror is enabled"
        assert self._writing is not None, "the mirror has a table"
        at, moved_seconds = self._store.moment(self._clock)
        if not now and at - moved_seconds < self._not_before:
            self._held_back |= at - moved_seconds < self._mirror.due_at
            return self._not_before - (at - moved_seconds)
        if self._held_back and not now:
            # What was written since the last look at a polled log would wait for the next write else: as long again.
            self._poll_logs()
            at, moved_seconds = self._store.moment(self._clock)
        self._held_back = False
        # Pauses are as long when the clock is set: they are kept by one that is not.
        unmoved_at = at - moved_seconds
        self._mirror.update(self._store.snapshot(at), moved_seconds=moved_seconds)
        error, outcomes = self._migrate(), Counter[str]()
        if error is None:
            result = self._mirror.flush(unmoved_at, now=now)
            error, outcomes = result.error, result.outcomes
            self._health.wrote(result.outcomes, result.seconds, result.pending, at, moved_seconds)
        # A round with nothing to write does not show that writing works again.
        if error is not None or outcomes:
            self._health.said("mirror", error)
        other = self._mirror.pop_other_writer()
        if other is not None:
            _log.warning(
                "another writer changes the column progress",
                advice=SafeText(self._mirror.advice),
                case=self._identifiers.case(other.case_id),
                beam=self._identifiers.beam(other.beam_id),
            )
        if error is not None or outcomes or self._mirror.pending:
            wait = max(_LOOK_SECONDS, self._mirror.due_at - unmoved_at)
            if error is not None:
                wait = min(wait, _RETRY_SECONDS)
            self._not_before = unmoved_at + wait
            # From here on: what writing has taken must not be added to the interval.
            ended, moved_by_then = self._store.moment(self._clock)
            return max(0.0, self._not_before - (ended - moved_by_then))
        self._not_before = unmoved_at + _LOOK_SECONDS
        return _CLOCK_SECONDS if self._settings.mirror.value == "estimated" else _IDLE_SECONDS

    def _migrate(self) -> DatabaseUnavailable | None:
        """Add the column, once for each file that is found at the path."""
        table = self._writing
        if table is None or not self._database.migrate or self._migrated_generation == table.generation:
            return None
        try:
            if table.migrate():
                _log.info("column progress added to the table beams", database=self._identifiers.path(str(table.path)))
        except DatabaseUnavailable as error:
            return error
        self._migrated_generation = table.generation
        return None

    def interrupt(self) -> None:
        """End a statement that runs now, so that its thread can end; from any thread."""
        self._file.interrupt()

    def close(self) -> None:
        """Do nothing: no connection is open between rounds. For those that close what they have made."""


def _file(database: DatabaseSettings) -> DatabaseFile:
    return DatabaseFile(Path(database.path), busy_timeout_ms=database.busy_timeout_ms, alone_in_process=True)


def _table(settings: Settings, file: DatabaseFile) -> BeamsTable:
    return BeamsTable(
        file.path,
        file=file,
        terminal_statuses=settings.discovery.terminal_statuses,
        completed_statuses=settings.discovery.completed_statuses,
    )


def _same_mirror(old: Settings, new: Settings) -> bool:
    throttles = [each.progress_tracking.monitoring.update_throttle_percent for each in (old, new)]
    return (old.database, old.mirror, old.discovery) == (new.database, new.mirror, new.discovery) and (
        throttles[0] == throttles[1]
    )


class _Health:
    """How the database is, from the two threads that use it.

    Args:
        store: told.
        identifiers: how the path is shown in log lines.
    """

    def __init__(self, store: BeamStore, identifiers: Identifiers) -> None:
        self._store = store
        self._identifiers = identifiers
        self._lock = threading.Lock()
        self._trouble: dict[str, str] = {}
        self._writes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._seconds = Summary()
        self._pending = 0
        self._publish()

    def said(self, part: str, error: DatabaseUnavailable | None) -> None:
        """A part of the exporter could, or could not, use the database; each change is worth one log line."""
        with self._lock:
            before = self._trouble.get(part)
            if error is not None:
                self._trouble[part] = error.kind
            elif before is not None:
                del self._trouble[part]
            self._publish()
        if error is not None and error.kind != before:
            _log.warning("database unavailable", part=part, kind=error.kind, error=self._identifiers.problem(error))
        elif error is None and before is not None:
            _log.info("database available again", part=part)

    def wrote(
        self,
        outcomes: Mapping[str, int],
        seconds: Iterable[float],
        pending: int,
        at: float,
        moved_seconds: float,
    ) -> None:
        """The mirror has had a round at a time (:meth:`BeamStore.moment`)."""
        with self._lock:
            self._writes.update(outcomes)
            for each in seconds:
                self._seconds = self._seconds.plus(each)
            self._pending = pending
            self._publish(at if outcomes.get("written") else None, moved_seconds)

    def _publish(self, written_at: float | None = None, moved_seconds: float | None = None) -> None:
        view = DatabaseView(not self._trouble, dict(self._writes), self._seconds, self._pending, written_at)
        self._store.update_database(view, moved_seconds=moved_seconds)
