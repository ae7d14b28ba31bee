"""Runs the mirror: writes the store's progress into the communicator's table."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

import structlog

from exporter.beams.store import BeamStore
from exporter.config import Settings
from exporter.database.mirror import Mirror
from exporter.database.unavailable import DatabaseUnavailable
from exporter.privacy.identifiers import SafeText
from exporter.runtime.database_access import DatabaseAccess

_log = structlog.get_logger(__name__)

_SHORTEST_SECONDS = 0.25
"""Shortest time between two snapshots of the store, however often it changes."""
_RETRY_SECONDS = 1.0
"""Longest time between two runs while the database cannot be written, so that pending updates are counted."""
_ESTIMATE_SECONDS = 1.0
"""Time between two runs when estimates are mirrored: they change with time alone."""
_IDLE_SECONDS = 10.0
"""Time between two runs otherwise. The store wakes the mirror, but not when somebody else writes to a row."""


class MirrorLoop:
    """Writes progress into the table when the store has changed.

    Args:
        settings: the configuration, with the mirror enabled.
        access: the database.
        store: source of the progress.
        clock: the present instant (:meth:`exporter.process.clock.Clock.now`).
        before: the loop until a reload. Its pending updates are kept if the settings are the same.
        poll_logs: makes every source poll now and waits a moment for it.
    """

    def __init__(
        self,
        settings: Settings,
        access: DatabaseAccess,
        store: BeamStore,
        clock: Callable[[], float],
        before: MirrorLoop | None = None,
        poll_logs: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._access = access
        self._store = store
        self._clock = clock
        self._poll_logs = poll_logs
        self._migrated_generation: int | None = None
        self._not_before = -math.inf
        self._held_back = False
        self._table = access.table
        self._mirror: Mirror
        if before is not None and access.has_same_settings:
            self._mirror = before._mirror
            return
        self._mirror = Mirror(
            self._table,
            terminal_statuses=settings.discovery.terminal_statuses,
            completed_statuses=settings.discovery.completed_statuses,
            reset_statuses=settings.discovery.reset_statuses,
            value=settings.mirror.value,
            value_range=settings.mirror.range,
            minimum_interval_seconds=settings.mirror.minimum_interval_seconds,
            throttle_percent=settings.progress_tracking.monitoring.update_throttle_percent,
            timer=time.perf_counter,
        )

    def run_once(self, *, now: bool = False) -> float:
        """Write the updates that are due. It may be called after every change of the store: it limits its own rate.

        Args:
            now: write all pending updates at once (at shutdown).

        Returns:
            Seconds until the next run if the store does not change before.
        """
        at = self._clock()
        if not now and at < self._not_before:
            self._held_back |= at < self._mirror.due_at
            return self._not_before - at
        if self._held_back and not now:
            # Poll first: otherwise a batch that has just begun would wait one more interval.
            self._poll_logs()
            at = self._clock()
        self._held_back = False
        self._mirror.update(self._store.snapshot(at))
        error, outcomes = self._migrate(), Counter[str]()
        if error is None:
            result = self._mirror.flush(at, now=now)
            error, outcomes = result.error, result.outcomes
            self._access.health.report_writes(result, at)
        # A run with nothing to write does not prove that writing works again.
        if error is not None or outcomes:
            self._access.health.report("mirror", error)
        other = self._mirror.pop_other_writer()
        if other is not None:
            _log.warning(
                "another writer changes the column progress",
                advice=SafeText(self._mirror.advice),
                case=other.case_id,
                beam=other.beam_id,
            )
        if error is not None or outcomes or self._mirror.pending:
            wait = max(_SHORTEST_SECONDS, self._mirror.due_at - at)
            if error is not None:
                wait = min(wait, _RETRY_SECONDS)
            self._not_before = at + wait
            # Count from the start of this run: the duration of writing is not added to the interval.
            return max(0.0, self._not_before - self._clock())
        self._not_before = at + _SHORTEST_SECONDS
        return _ESTIMATE_SECONDS if self._settings.mirror.value == "estimated" else _IDLE_SECONDS

    def _migrate(self) -> DatabaseUnavailable | None:
        """Add the column ``progress``, once per table."""
        table = self._table
        if not self._access.database.migrates or self._migrated_generation == table.generation:
            return None
        try:
            if table.migrate():
                _log.info("column progress added to the table beams", database=table.name)
        except DatabaseUnavailable as error:
            return error
        self._migrated_generation = table.generation
        return None
