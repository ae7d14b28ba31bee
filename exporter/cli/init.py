"""The command ``init``: makes a configuration from the communicator's own."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.cli.errors import fail
from exporter.cli.flags import examples
from exporter.process.trusted_files import forbid_changes_by_others


@click.command(epilog=examples("mqi-exporter init --communicator /opt/mqi/config.yaml --output exporter.yaml"))
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
    from exporter.config import ConfigError
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
