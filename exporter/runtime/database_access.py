"""The database as discovery and mirror share it: one table, one health status."""

from __future__ import annotations

import threading
from collections import Counter

import structlog

from exporter.beams.snapshot import DatabaseView, Summary
from exporter.beams.store import BeamStore
from exporter.config import DatabaseSettings, Settings
from exporter.database.mirror import OUTCOMES, FlushResult
from exporter.database.open_table import open_table
from exporter.database.table import Table
from exporter.database.unavailable import DatabaseUnavailable

_log = structlog.get_logger(__name__)


class DatabaseAccess:
    """Shares one table and its health between discovery and mirror.

    Args:
        settings: the configuration.
        database: its section ``database``.
        store: receives the health.
        before: the access until a reload. Its table is kept if the settings are the same, its health in any case.
    """

    def __init__(
        self,
        settings: Settings,
        database: DatabaseSettings,
        store: BeamStore,
        before: DatabaseAccess | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.has_same_settings = before is not None and _are_equal(before.settings, settings)
        self.table: Table = (
            before.table if before is not None and self.has_same_settings else open_table(database, settings.discovery)
        )
        self.health: DatabaseHealth = DatabaseHealth(store) if before is None else before.health

    def interrupt(self) -> None:
        """End the running SQL statement so that its thread can end. Any thread may call this."""
        self.table.interrupt()


def _are_equal(old: Settings, new: Settings) -> bool:
    throttles = [each.progress_tracking.monitoring.update_throttle_percent for each in (old, new)]
    return (old.database, old.mirror, old.discovery) == (new.database, new.mirror, new.discovery) and (
        throttles[0] == throttles[1]
    )


class DatabaseHealth:
    """Collects what both threads report and publishes it to the store. It outlives reloads."""

    def __init__(self, store: BeamStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._errors: dict[str, str] = {}
        self._writes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._seconds = Summary()
        self._pending = 0
        self._publish()

    def report(self, part: str, error: DatabaseUnavailable | None) -> None:
        """Record whether a part of the exporter could use the database, and log each change once.

        Args:
            part: ``discovery`` or ``mirror``.
            error: why it could not; ``None`` if it could.
        """
        with self._lock:
            before = self._errors.get(part)
            if error is not None:
                self._errors[part] = error.kind
            elif before is not None:
                del self._errors[part]
            self._publish()
        if error is not None and error.kind != before:
            _log.warning("database unavailable", part=part, kind=error.kind, error=error)
        elif error is None and before is not None:
            _log.info("database available again", part=part)

    def report_writes(self, result: FlushResult, at: float) -> None:
        """Count what the mirror has written at an instant."""
        with self._lock:
            self._writes.update(result.outcomes)
            for each in result.seconds:
                self._seconds = self._seconds.plus(each)
            self._pending = result.pending
            self._publish(at if result.outcomes.get("written") else None)

    def _publish(self, written_at: float | None = None) -> None:
        view = DatabaseView(not self._errors, dict(self._writes), self._seconds, self._pending, written_at)
        self._store.update_database(view)
