"""Runs discovery: finds beams in the communicator's table, or by the names of log files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from exporter.beams.snapshot import BeamRow
from exporter.beams.store import BeamStore
from exporter.config import Settings
from exporter.database.discovery import DatabaseDiscovery, DirectoryDiscovery
from exporter.database.unavailable import DatabaseUnavailable
from exporter.privacy.identifiers import Identifiers
from exporter.runtime.database_access import DatabaseAccess
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import ENTRIES_LIMIT, LogProblem, LogSource, LogStat, SourceUnavailable

_log = structlog.get_logger(__name__)

_LIST_AT_LEAST_EVERY = 60
"""Folders are listed in every 60th run even if nothing seems to have changed: a listing of 10 000 logs takes 70 ms."""
_UNCHANGED_RUNS_NEEDED = 3
"""A folder's time stamp (resolution up to 2 s) must stay the same for three runs before listing it is skipped."""


class TableDiscoveryLoop:
    """Reads the rows of the table into the store.

    Args:
        settings: the configuration, with a database.
        access: the database.
        store: receives the rows.
        identifiers: which statuses may be shown.
        clock: the present instant (:meth:`exporter.process.clock.Clock.now`).
    """

    def __init__(
        self,
        settings: Settings,
        access: DatabaseAccess,
        store: BeamStore,
        identifiers: Identifiers,
        clock: Callable[[], float],
    ) -> None:
        self._discovery = DatabaseDiscovery(access.table, retention_seconds=settings.retention_seconds)
        self._access = access
        self._store = store
        self._identifiers = identifiers
        self._clock = clock

    def run_once(self) -> None:
        """Read the rows once."""
        at = self._clock()
        try:
            found = self._discovery.find_beams(at, self._store.keys(), self._store.timeline)
        except DatabaseUnavailable as error:
            self._access.health.report("discovery", error)
            return
        self._access.health.report("discovery", None)
        if found.refused:
            _log.warning("ids refused: they cannot be part of a path or a label", **found.refused)
        self._store.count_refused(found.refused)
        rows = [self._cleared(row) for row in found.rows]
        self._store.update_rows(rows, found.missing, at)

    def _cleared(self, row: BeamRow) -> BeamRow:
        """Replace a status that is not one of the known ones: statuses become labels and may hold any text."""
        shown = row.status if row.status is None else self._identifiers.status(row.status)
        return row if shown == row.status else replace(row, status=shown)


class DirectoryDiscoveryLoop:
    """Finds beams by the names of log files. It runs in the thread of their source.

    Args:
        settings: the configuration, with ``discovery.kind: directory``.
        source: the source that holds the folders.
        templates: log path templates, whose folders are listed.
        store: receives the beams.
        clock: the present instant (:meth:`exporter.process.clock.Clock.now`).
    """

    def __init__(
        self,
        settings: Settings,
        source: LogSource,
        templates: Iterable[LogPathTemplate],
        store: BeamStore,
        clock: Callable[[], float],
    ) -> None:
        self._discovery = DirectoryDiscovery(settings.discovery.name_pattern)
        self._source = source
        self._folders = sorted({template.folder for template in templates})
        self._store = store
        self._clock = clock
        self._interval_seconds = settings.discovery.interval_seconds
        self._kept_seconds = settings.failed_retention_seconds
        self._due_at = float("-inf")
        self._logged_problems: dict[str, str] = {}
        self._marks: tuple[object, ...] = ()
        self._unchanged_runs = 0
        self._runs_without_listing = 0

    def run_once(self, between: Callable[[], object] = lambda: None) -> float:
        """List the folders if the interval has passed.

        A listing costs one ``stat`` per file. It is skipped while the folders' time stamps stay the same, because then
        no name has come or gone. A forgotten log that grows again changes no name, so the folders are still listed now
        and then.

        Args:
            between: called every few hundred names, for work that must not wait for thousands of them.

        Returns:
            Seconds until the interval has passed again.
        """
        at = self._clock()
        if at < self._due_at:
            return self._due_at - at
        self._due_at = at + self._interval_seconds
        if not self._may_have_changed():
            return self._interval_seconds
        folders: dict[str, Mapping[str, LogStat]] = {}
        room = ENTRIES_LIMIT
        for folder in self._folders:
            folders[folder] = self._files(folder, room)
            room -= len(folders[folder])
        # Skip files too old to belong to a beam in the store: the folders may hold the logs of years.
        by_their_clock = self._store.timeline.to_wall(at) + (self._store.clock_offset_seconds(self._source.name) or 0.0)
        found = self._discovery.find_beams(at, folders, between, written_since=by_their_clock - self._kept_seconds)
        self._store.count_refused(found.refused)
        between()
        self._store.update_rows(found.rows, (), at)
        return self._interval_seconds

    def _may_have_changed(self) -> bool:
        changed = True
        if isinstance(self._source, LocalLogSource):
            marks = tuple(self._source.folder_stamp(folder) for folder in self._folders)
            self._unchanged_runs = self._unchanged_runs + 1 if marks == self._marks and None not in marks else 0
            self._marks = marks
            changed = self._unchanged_runs < _UNCHANGED_RUNS_NEEDED
        self._runs_without_listing += 1
        if changed or self._runs_without_listing >= _LIST_AT_LEAST_EVERY:
            self._runs_without_listing = 0
            return True
        return False

    def _files(self, folder: str, most: int) -> Mapping[str, LogStat]:
        """Return the files of a folder; none if it cannot be listed or has more than ``most`` files."""
        try:
            listing = self._source.listing(folder)
            if len(listing) > most:
                raise LogProblem(
                    "too_many",
                    f"{folder} and the folders before it have more than {ENTRIES_LIMIT} files",
                    "move old logs to another place",
                )
        except (LogProblem, SourceUnavailable) as problem:
            if self._logged_problems.get(folder) != problem.kind:
                self._logged_problems[folder] = problem.kind
                _log.warning(
                    "folder of logs cannot be listed",
                    source=self._source.name,
                    error=problem,
                )
            return {}
        self._logged_problems.pop(folder, None)
        return listing
