"""Makes the table that the configuration names."""

from __future__ import annotations

from exporter.config import DatabaseSettings
from exporter.config.sections import DiscoverySettings
from exporter.database.beams_table import BeamsTable
from exporter.database.table import Table


def open_table(database: DatabaseSettings, discovery: DiscoverySettings | None = None) -> Table:
    """Make the table ``beams`` for a process in which nothing else opens the database. No connection is opened yet.

    Args:
        database: the section ``database``.
        discovery: meaning of statuses; defaults without it.
    """
    meaning = discovery or DiscoverySettings()
    if database.path is None:
        # The driver is an extra package; the configuration is not valid without it.
        from exporter.database.postgresql import PostgresTable

        return PostgresTable(
            database,
            terminal_statuses=meaning.terminal_statuses,
            completed_statuses=meaning.completed_statuses,
        )
    return BeamsTable(
        database.path,
        busy_timeout_ms=database.busy_timeout_ms,
        terminal_statuses=meaning.terminal_statuses,
        completed_statuses=meaning.completed_statuses,
        alone_in_process=True,
    )
