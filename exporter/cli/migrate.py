"""The command ``migrate``."""

from __future__ import annotations

import click

from exporter.cli.configuration import identifiers_for, load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, config_flag, examples
from exporter.database.open_table import open_table
from exporter.database.unavailable import DatabaseUnavailable


@click.command(epilog=examples("mqi-exporter migrate"))
@config_flag
@click.pass_obj
def migrate(flags: Flags) -> None:
    """Add the column `progress` to the communicator's table `beams`, if it is missing."""
    settings = load_settings(flags)
    if settings.database is None:
        fail(f"{flags.path}: database.path is not set; there is nothing to migrate")
    table = open_table(settings.database)
    try:
        added = table.migrate()
    except DatabaseUnavailable as error:
        fail(f"database: {identifiers_for(settings).problem(error)}")
    finally:
        table.close()
    click.echo(f"{table.name}: {'column progress added' if added else 'nothing to do, progress is there'}")
