"""The command ``mqi-exporter``."""

from __future__ import annotations

from pathlib import Path

import click
import structlog

from exporter import __version__
from exporter.cli.check_config import check_config
from exporter.cli.errors import fail
from exporter.cli.explain import explain
from exporter.cli.export import alerts, dashboards
from exporter.cli.notify import notify
from exporter.cli.options import Flags, common_flags, identifiers_for, load_settings
from exporter.cli.runs import runs
from exporter.cli.top.command import top
from exporter.cli.verify import verify_command
from exporter.cli.whois import whois_command
from exporter.config import ConfigError
from exporter.database.beams_table import BeamsTable
from exporter.database.unavailable import DatabaseUnavailable
from exporter.process.trusted_files import forbid_changes_by_others

_log = structlog.get_logger(__name__)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@common_flags
@click.version_option(__version__, prog_name="mqi-exporter", message="%(prog)s, version %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Progress of Monte Carlo dose simulations for Prometheus and MQI Communicator.

    Without a command, run the exporter.
    """
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
@common_flags
@click.pass_obj
def run(flags: Flags) -> None:
    """Read logs of running beams and serve their progress (the default)."""
    from exporter.cli.serve import serve_configured

    serve_configured(flags)


@main.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo's database and logs go; emptied of an earlier demo's.  [default: a temporary folder]",
)
@click.option(
    "--speed", type=click.FloatRange(min=0.01, max=1000), default=1.0, show_default=True, help="Times faster than real."
)
@common_flags
@click.pass_obj
def demo(flags: Flags, folder: Path | None, speed: float) -> None:
    """Run on simulated beams and an embedded database; nothing else is needed."""
    from exporter.cli.serve import serve_demo

    serve_demo(flags, folder, speed)


@main.command()
@common_flags
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


@main.command()
@click.option(
    "--communicator",
    "communicator_config",
    required=True,
    type=click.Path(path_type=Path),
    metavar="CONFIG.yaml",
    help="The communicator's own configuration, of either revision.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write; never over one that is there.  [default: stdout]"
)
@click.option("--force", is_flag=True, help="Write over it all the same.")
@click.option(
    "--base-directory",
    metavar="PATH",
    help="The communicator's base directory, where its configuration does not tell.",
)
@click.option(
    "--database",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The communicator's database, or a copy of it.  [default: the one that its configuration names]",
)
def init(
    communicator_config: Path, output: Path | None, force: bool, base_directory: str | None, database: Path | None
) -> None:
    """Make a configuration from the communicator's own configuration.

    The columns and values of its database are read, too, and not changed. Comments say where each value comes from. A
    list at the top names what must be checked by hand. Secrets are not copied.
    """
    if base_directory is not None and not base_directory.startswith("/"):
        raise click.BadParameter(f"{base_directory!r} is not an absolute path", param_hint="--base-directory")
    from exporter.integrations.communicator import draft_config

    try:
        draft = draft_config(communicator_config, base_directory=base_directory, database=database)
    except ConfigError as error:
        fail(str(error))
    if output is None:
        click.echo(draft.text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            forbid_changes_by_others(file.fileno())
            file.write(draft.text)
    except FileExistsError:
        fail(f"{output}: is there already; name another file, or write over it with --force")
    except OSError as error:
        fail(f"{output}: cannot be written: {error.strerror}")
    click.echo(f"{output}: written; {len(draft.checks)} things to check by hand stand on its top", err=True)


for command in (verify_command, check_config, top, explain, runs, whois_command, notify, alerts, dashboards):
    main.add_command(command)


if __name__ == "__main__":
    main()
