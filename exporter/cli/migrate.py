"""The command ``migrate``."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.cli.configuration import identifiers_for, load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, config_flag, examples
from exporter.database.beams_table import BeamsTable
from exporter.database.unavailable import DatabaseUnavailable


@click.command(epilog=examples("mqi-exporter migrate"))
@config_flag
@click.pass_obj
def migrate(flags: Flags) -> None:
    """Add the column `progress` to the communicator's table `beams`, if it is missing."""
    settings = load_settings(flags)
    if settings.database is None:
        fail(f"{flags.path}: database.path is not set; there is nothing to migrate")
    table = BeamsTable(
        Path(settings.database.path), busy_timeout_ms=settings.database.busy_timeout_ms, alone_in_process=True
    )
    try:
        added = table.migrate()
    except DatabaseUnavailable as error:
        fail(f"database: {identifiers_for(settings).problem(error)}")
    finally:
        table.close()
    click.echo(f"{settings.database.path}: {'column progress added' if added else 'nothing to do, progress is there'}")
