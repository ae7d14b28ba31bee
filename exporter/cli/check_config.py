"""The command ``check-config``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from exporter.cli.configuration import identifiers_for, load_settings, settings_warnings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, address_flags, examples
from exporter.config import ConfigError, Settings
from exporter.database.open_table import open_table
from exporter.runtime.privacy import pseudonym_key
from exporter.web import web_config


@click.command(
    name="check-config",
    epilog=examples("mqi-exporter check-config", "mqi-exporter --config.file new.yaml check-config --connect"),
)
@click.option("--connect", is_flag=True, help="Try every source and the database, too.")
@address_flags
@click.pass_obj
def check_config(flags: Flags, connect: bool) -> None:
    """Check the configuration file; every mistake is shown with file, line and key.

    With --connect, also try every source and the database; exit status 1 if one of them does not work.
    """
    settings = load_settings(flags)
    for warning in settings_warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    _check_patterns(settings)
    identifiers = identifiers_for(settings)
    if os.geteuid() != 0:  # root usually checks the file of an exporter that runs as another user
        web_file = settings.web.config_file
        checks: list[Callable[[], object]] = [flags.own_settings, lambda: pseudonym_key(settings)]
        if web_file is not None:
            checks.append(lambda: web_config.read_web_config(Path(web_file), "owned"))
        for check in checks:
            try:
                check()
            except ConfigError as error:
                click.echo(f"warning: {error}, unless the exporter runs as its owner", err=True)
    if settings.database is not None:
        for warning in open_table(settings.database).warnings():
            click.echo(f"warning: database: {warning}", err=True)
    click.echo(f"{flags.path}: valid")
    if settings.web.config_file is not None:
        click.echo(f"{settings.web.config_file}: valid")
    if connect:
        from exporter.cli.connections import check_connections

        works = True
        for finding in check_connections(settings, identifiers):
            click.echo(f"{finding.outcome}  {finding.text}")
            works = works and finding.outcome != "FAILED"
        if not works:
            sys.exit(1)


def _check_patterns(settings: Settings) -> None:
    """Warn of patterns that become slow on long lines. End the command if one is too slow."""
    from exporter.cli.pattern_cost import slow_patterns

    too_slow: list[str] = []
    for finding in slow_patterns(settings):
        said = str(settings.error_at((finding.location, finding.text)))
        if finding.cost.too_slow:
            too_slow.append(said)
        else:
            click.echo(f"warning: {said}", err=True)
    if too_slow:
        fail("\n".join(too_slow))
