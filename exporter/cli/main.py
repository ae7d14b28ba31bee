"""The command ``mqi-exporter``."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from exporter import __version__
from exporter.cli import export as cli_files
from exporter.cli import inspect as cli_looks
from exporter.cli.errors import fail
from exporter.cli.options import Flags, common_flags, identifiers_for, load_settings, settings_warnings
from exporter.config import ConfigError, Settings, settings_from
from exporter.config.listen_address import ListenError
from exporter.database.beams_table import BeamsTable
from exporter.database.unavailable import DatabaseUnavailable
from exporter.demo.demo import DemoCommunicator
from exporter.demo.host import DemoHost, NoHost
from exporter.integrations.communicator import draft_config
from exporter.persistence.store import StateInUse, StateNotOurs
from exporter.process import core_dumps, gc_tuning
from exporter.process.trusted_files import forbid_changes_by_others
from exporter.runtime import log_output
from exporter.runtime.exporter import Exporter
from exporter.web.routes import ReloadFailed

_log = structlog.get_logger(__name__)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@common_flags
@click.version_option(__version__, prog_name="mqi-exporter", message="%(prog)s, version %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Progress of Monte Carlo dose simulations for Prometheus and MQI Communicator.

    Without a command: run.
    """
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
@common_flags
@click.pass_obj
def run(flags: Flags) -> None:
    """Follow beams and serve their progress (the default)."""
    core_dumps.disable()
    settings = load_settings(flags, own=True)
    _configure_log(settings)
    _serve(settings, flags.own_settings)


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
    """Run on simulated beams and an embedded database; needs nothing else."""
    with tempfile.TemporaryDirectory(prefix="mqi-exporter-demo-") as temporary, contextlib.ExitStack() as stack:
        host = _demo_host(Path(temporary) / "host")
        if host is not None:
            stack.callback(host.stop)
        communicator = DemoCommunicator(folder or Path(temporary), speed=speed, host=host)
        try:
            communicator.prepare()
        except OSError as error:
            fail(f"cannot prepare the demo in {communicator.base_directory}: {error.strerror}; choose another --folder")
        configuration = communicator.configuration(flags.listen_address or "127.0.0.1:10813")

        def read() -> Settings:
            return flags.over(settings_from(configuration, "demo"))

        settings = read()
        _configure_log(settings)
        _serve(settings, read, communicator)


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
    """Make a configuration from the communicator's own.

    Its database is looked at, too, and not changed: which columns it has, and what stands in them. Each value says what
    it was taken or inferred from; what cannot be known is listed on top, to be checked by hand. Secrets are not copied.
    """
    if base_directory is not None and not base_directory.startswith("/"):
        raise click.BadParameter(f"{base_directory!r} is not an absolute path", param_hint="--base-directory")
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


main.add_command(cli_looks.verify_command)
main.add_command(cli_looks.check_config)
main.add_command(cli_looks.top)
main.add_command(cli_looks.whois_command)
main.add_command(cli_files.alerts)
main.add_command(cli_files.dashboards)


def _configure_log(settings: Settings) -> None:
    redact = settings.privacy.identifiers == "pseudonym"
    log_output.configure(settings.log.level, settings.log.format, redact=redact)
    for warning in settings_warnings(settings):
        _log.warning("doubtful configuration", about=warning)


def _serve(
    settings: Settings, read_settings: Callable[[], Settings], communicator: DemoCommunicator | None = None
) -> None:
    """Run until SIGINT or SIGTERM; reload at SIGHUP."""
    woken, stopping, reloading = threading.Event(), threading.Event(), threading.Event()

    def on_signal(number: int, _: object) -> None:
        (reloading if number == signal.SIGHUP else stopping).set()
        woken.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        exporter = Exporter(settings, read_settings)
    except (ListenError, ConfigError, StateInUse, StateNotOurs) as error:
        fail(str(error))
    gc_tuning.collect_less_often()
    exporter.start()
    playing = None
    if communicator is not None:
        playing = threading.Thread(target=communicator.run, args=(stopping,), name="demo", daemon=True)
        playing.start()
        _say_where_to_look(exporter.url, communicator)
    while not stopping.is_set():
        # Python runs signal handlers between two waits only.
        woken.wait(1.0)
        woken.clear()
        if reloading.is_set():
            reloading.clear()
            # What is wrong with the configuration has been said and is in a metric.
            with contextlib.suppress(ReloadFailed):
                exporter.reload()
    exporter.stop()
    if playing is not None:
        playing.join(1.0)


def _demo_host(folder: Path) -> DemoHost | None:
    """The demo's other host, where it can be had."""
    try:
        return DemoHost(folder)
    except NoHost as reason:
        click.echo(f"Without its remote half: {reason}.", err=True)
        return None


def _say_where_to_look(url: str, communicator: DemoCommunicator) -> None:
    click.echo(
        f"""
Simulated beams run for about three minutes; one of them stalls and stays so. Look at

  {url}/          the page
  {url}/metrics   the metrics
  sqlite3 {communicator.database_path} 'SELECT beam_id, status, progress FROM beams'

Ctrl-C ends it.
""",
        err=True,
    )


if __name__ == "__main__":
    main()
