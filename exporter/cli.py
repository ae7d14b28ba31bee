"""The command ``mqi-exporter``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import structlog

from exporter import __version__, cli_files, core_dumps, garbage, log_output, whois
from exporter.app import Exporter
from exporter.beams.snapshot import BeamState
from exporter.communicator import ours
from exporter.config import ConfigError, Settings, load, settings_from
from exporter.database.beams_table import BeamsTable, DatabaseUnavailable
from exporter.demo import DemoCommunicator
from exporter.demo_host import DemoHost, NoHost
from exporter.following import site_patterns
from exporter.identifiers import Identifiers
from exporter.logs.parser import SitePatterns
from exporter.logs.source import LogProblem, SourceUnavailable
from exporter.privacy import check_resolvers, identifiers_of, pseudonym_key
from exporter.pseudonyms import is_pseudonym
from exporter.state_file import StateInUse, StateNotOurs
from exporter.terminal import fail
from exporter.trial import trials
from exporter.verify import text, verify
from exporter.web import web_config
from exporter.web.listener import ListenError, parse_listen_address
from exporter.web.routes import ReloadFailed

if TYPE_CHECKING:
    from exporter.top.readers import Reader

_log = structlog.get_logger(__name__)

DEFAULT_CONFIG = "/etc/mqi-exporter/exporter.yaml"


@dataclass
class Flags:
    """The flags common to all commands, given before or after the command's name; ``None`` where not given."""

    config_file: Path | None = None
    listen_address: str | None = None
    web_config_file: Path | None = None
    enable_lifecycle: bool | None = None
    log_level: str | None = None
    log_format: str | None = None

    def settings(self) -> Settings:
        """The configuration file with these flags on top.

        Raises:
            ConfigError: with all mistakes at once.
        """
        return self.over(load(self.path))

    @property
    def path(self) -> Path:
        """The configuration file."""
        return self.config_file or Path(DEFAULT_CONFIG)

    def over(self, settings: Settings) -> Settings:
        """``settings`` with these flags on top."""
        web = {
            "listen_address": self.listen_address,
            "config_file": None if self.web_config_file is None else os.path.abspath(self.web_config_file),
            "enable_lifecycle": self.enable_lifecycle,
        }
        log = {"level": self.log_level, "format": self.log_format}
        return settings.model_copy(
            update={
                "web": settings.web.model_copy(update=_given(web)),
                "log": settings.log.model_copy(update=_given(log)),
            }
        )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    flags = context.ensure_object(Flags)
    if value is not None and parameter.name is not None:
        setattr(flags, parameter.name, value)


def _checked_address(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        try:
            parse_listen_address(value)
        except ListenError as error:
            raise click.BadParameter(str(error), context, parameter) from None
    _keep(context, parameter, value)


_COMMON_FLAGS = (
    click.option(
        "--config.file",
        "config_file",
        type=click.Path(path_type=Path),
        help=f"Configuration file (YAML).  [default: {DEFAULT_CONFIG}]",
        callback=_keep,
        expose_value=False,
    ),
    click.option(
        "--web.listen-address",
        "listen_address",
        metavar="HOST:PORT",
        help="Where to serve HTTP; overrides web.listen_address.",
        callback=_checked_address,
        expose_value=False,
    ),
    click.option(
        "--web.config.file",
        "web_config_file",
        type=click.Path(path_type=Path),
        help="TLS and passwords (YAML, as of all Prometheus exporters); overrides web.config_file.",
        callback=_keep,
        expose_value=False,
    ),
    click.option(
        "--web.enable-lifecycle",
        "enable_lifecycle",
        is_flag=True,
        default=None,
        help="Allow POST /-/reload.",
        callback=_keep,
        expose_value=False,
    ),
    click.option(
        "--log.level",
        "log_level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least severity logged; overrides log.level.",
        callback=_keep,
        expose_value=False,
    ),
    click.option(
        "--log.format",
        "log_format",
        type=click.Choice(["logfmt", "json"]),
        help="Form of log lines; overrides log.format.",
        callback=_keep,
        expose_value=False,
    ),
)

Function = TypeVar("Function", bound=Callable[..., Any])


def _common_flags(function: Function) -> Function:
    """The flags common to all commands: people write them on either side of the command's name."""
    for flag in reversed(_COMMON_FLAGS):
        function = flag(function)
    return function


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@_common_flags
@click.version_option(__version__, prog_name="mqi-exporter", message="%(prog)s, version %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Progress of Monte Carlo dose simulations for Prometheus and MQI Communicator.

    Without a command: run.
    """
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
@_common_flags
@click.pass_obj
def run(flags: Flags) -> None:
    """Follow beams and serve their progress (the default)."""
    core_dumps.forbid()
    settings = _settings(flags)
    _configure_log(settings)
    _serve(settings, flags.settings)


@main.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo's database and logs go; emptied of an earlier demo's.  [default: a temporary folder]",
)
@click.option(
    "--speed", type=click.FloatRange(min=0.01, max=1000), default=1.0, show_default=True, help="Times faster than real."
)
@_common_flags
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


@main.command(name="verify")
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LOG...")
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of text.")
@_common_flags
@click.pass_context
def verify_command(context: click.Context, logs: tuple[Path, ...], as_json: bool) -> None:
    """Say what would be read from these logs.

    The patterns of --config.file are used where it is given. Exit status 1 when a log cannot be read or nothing in it
    is known.
    """
    flags: Flags = context.obj
    site = site_patterns(_settings(flags)) if flags.config_file is not None else SitePatterns()
    reports = [verify(log, site) for log in logs]
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], ensure_ascii=False, indent=2))
    else:
        click.echo("\n\n".join(text(report) for report in reports))
    if not all(report.understood for report in reports):
        context.exit(1)


@main.command(name="check-config")
@click.option("--connect", is_flag=True, help="Try every source and the database, too.")
@_common_flags
@click.pass_obj
def check_config(flags: Flags, connect: bool) -> None:
    """Check the configuration file; every mistake is named with its line and key.

    With --connect, exit status 1 when a source or the database does not work.
    """
    settings = _settings(flags)
    for warning in _warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    identifiers = _identifiers(settings)
    click.echo(f"{flags.path}: valid")
    if settings.web.config_file is not None:
        click.echo(f"{settings.web.config_file}: valid")
    if connect:
        works = True
        for finding in trials(settings, identifiers):
            click.echo(f"{'ok' if finding.works else 'FAILED'}  {finding.text}")
            works = works and finding.works
        if not works:
            sys.exit(1)


@main.command()
@_common_flags
@click.pass_obj
def migrate(flags: Flags) -> None:
    """Add the column `progress` to the communicator's table `beams`, if it is missing."""
    settings = _settings(flags)
    if settings.database is None:
        fail(f"{flags.path}: database.path is not set; there is nothing to migrate")
    table = BeamsTable(Path(settings.database.path), busy_timeout_ms=settings.database.busy_timeout_ms)
    try:
        added = table.migrate()
    except DatabaseUnavailable as error:
        fail(str(error))
    finally:
        table.close()
    click.echo(f"{settings.database.path}: {'column progress added' if added else 'nothing to do, progress is there'}")


@main.command()
@click.option("--url", metavar="URL", help="A running exporter.  [default: the configuration's web.listen_address]")
@click.option(
    "--database",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Straight from the communicator's database; without PATH the configuration's.",
)
@click.option("--once", is_flag=True, help="Print once and end; so it is without a terminal, too.")
@click.option("--json", "as_json", is_flag=True, help="With --once: JSON with the names of /api/v1/beams.")
@click.option(
    "--sort", type=click.Choice(["state", "case", "progress", "left", "age"]), default="state", show_default=True
)
@click.option("--filter", "text", metavar="TEXT", default="", help="Only beams with this in an id, source or remark.")
@click.option("--state", type=click.Choice([state.value for state in BeamState]), help="Only beams in this state.")
@click.option("--interval", type=click.FloatRange(min=0.2, max=3600), default=2.0, show_default=True, metavar="SECONDS")
@click.option("--user", metavar="NAME", help="For an exporter that asks for a password; with --password-file.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="Its first line is the password; only you may read it."
)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file of the authority of the exporter's certificate."
)
@_common_flags
@click.pass_obj
def top(
    flags: Flags,
    user: str | None,
    password_file: Path | None,
    ca_file: Path | None,
    url: str | None,
    database: str | None,
    once: bool,
    as_json: bool,
    sort: str,
    text: str,
    state: str | None,
    interval: float,
) -> None:
    """Show every beam in the terminal, live.

    Keys: q quit, s sort, / find text, f state, arrows scroll, escape shows all again. Without --url and --database the
    exporter of the configuration is asked, and the configuration's database where it does not answer.
    """
    from exporter.top import terminal
    from exporter.top.readers import Unavailable, login
    from exporter.top.view import View

    if url is not None and database is not None:
        raise click.UsageError("--url and --database: name one of them")
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file: give both or none")
    view = View(sort=sort, text=text, state=state)
    try:
        credentials = None if user is None or password_file is None else login(user, password_file)
        reader = _top_reader(flags, url, database, credentials, ca_file)
        with contextlib.closing(reader):
            if as_json:
                look = reader.look()
                look = dataclasses.replace(look, beams=tuple(view.chosen(look.beams)))
                click.echo(json.dumps(look.as_json(), ensure_ascii=False, indent=2, allow_nan=False))
            elif once or not terminal.is_interactive():
                terminal.show_once(reader, view)
            else:
                sys.exit(terminal.run_live(reader, view, interval))
    except Unavailable as trouble:
        fail(str(trouble))


def _top_reader(
    flags: Flags,
    url: str | None,
    database: str | None,
    credentials: tuple[str, str] | None,
    ca_file: Path | None,
) -> Reader:
    """Where `top` gets its beams; a configuration is read only where one is needed or there."""
    from exporter.top.readers import ApiReader, FirstReader, TableReader, url_of

    if url is not None:
        return ApiReader(url, credentials=credentials, ca_file=ca_file)
    wanted = flags.config_file is not None or database == ""
    settings = _settings(flags) if wanted or os.access(flags.path, os.R_OK) else None
    if database:
        shown = None if settings is None else _identifiers(settings)
        return TableReader(Path(database), settings, identifiers=shown)
    own = None
    # Who may not read the key of pseudonyms sees what the exporter shows, and no more.
    if settings is not None and settings.database is not None and (database is not None or _may_name(settings)):
        own = TableReader(settings.database.path, settings, identifiers=_identifiers(settings))
    if database is not None:
        if own is None:
            fail(f"{flags.path}: database.path is not set; name one with --database PATH")
        return own
    address = flags.listen_address or ("127.0.0.1:10813" if settings is None else settings.web.listen_address)
    web_file = flags.web_config_file or (None if settings is None else settings.web.config_file)
    tls = web_file is not None and web_config.serves_tls(Path(web_file))
    api = ApiReader(url_of(address, tls=tls), credentials=credentials, ca_file=ca_file)
    return api if own is None else FirstReader([api, own])


@main.command(name="whois")
@click.argument("pseudonyms", nargs=-1, required=True, metavar="PSEUDONYM...")
@_common_flags
@click.pass_obj
def whois_command(flags: Flags, pseudonyms: tuple[str, ...]) -> None:
    """Say whose pseudonyms these are, for who may read the key file.

    The ids are looked for where beams are discovered. Who has asked for what is written to the system's log and to
    standard error. Exit status 1 when nobody has one of them.
    """
    settings = _settings(flags)
    asked = [pseudonym.strip().lower() for pseudonym in pseudonyms]
    # What is none could be an id, which must not be logged.
    if not all(is_pseudonym(pseudonym) for pseudonym in asked):
        raise click.UsageError("that is no pseudonym; one is case- or beam- and at least 12 letters and digits")
    try:
        key = pseudonym_key(settings)
    except ConfigError as error:
        fail(str(error))
    if key is None:
        fail(f"{flags.path}: privacy.identifiers is plain: ids are shown as they are, there are no pseudonyms")
    line = f"whois {' '.join(asked)} asked for by {whois.who_asks()}"
    logged = whois.tell_system_log(line)
    click.echo(line if logged else f"{line} (there is no system log to write this to)", err=True)
    try:
        found = whois.holders(asked, key, whois.every_id(settings))
    except (DatabaseUnavailable, LogProblem, SourceUnavailable) as error:
        fail(str(error))
    for holder in found:
        click.echo(str(holder))
    if strangers := [pseudonym for pseudonym in asked if pseudonym not in {holder.pseudonym for holder in found}]:
        fail(f"nobody that is known here now has {', '.join(strangers)}")


@main.command()
@click.option(
    "--communicator",
    "theirs",
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
def init(theirs: Path, output: Path | None, force: bool, base_directory: str | None) -> None:
    """Make a configuration from the communicator's own.

    Each value says where it was taken from; what cannot be known is listed on top, to be checked by hand. Secrets are
    not copied.
    """
    if base_directory is not None and not base_directory.startswith("/"):
        raise click.BadParameter(f"{base_directory!r} is not an absolute path", param_hint="--base-directory")
    try:
        draft = ours(theirs, base_directory=base_directory)
    except ConfigError as error:
        fail(str(error))
    if output is None:
        click.echo(draft.text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(draft.text)
    except FileExistsError:
        fail(f"{output}: is there already; name another file, or write over it with --force")
    except OSError as error:
        fail(f"{output}: cannot be written: {error.strerror}")
    click.echo(f"{output}: written; {len(draft.checks)} things to check by hand stand on its top", err=True)


main.add_command(cli_files.alerts)
main.add_command(cli_files.dashboards)


def _settings(flags: Flags) -> Settings:
    try:
        return flags.settings()
    except ConfigError as error:
        fail(str(error))


def _warnings(settings: Settings) -> list[str]:
    """What is allowed but probably not meant, in the web configuration too; ends the command where that is wrong."""
    try:
        if settings.web.config_file is None:
            check_resolvers(settings, ())
            return settings.warnings()
        path = Path(settings.web.config_file)
        config = web_config.read_web_config(path)
        check_resolvers(settings, config.basic_auth_users)
    except ConfigError as error:
        fail(str(error))
    return [*settings.warnings(), *web_config.doubts(path, config, settings.web.listen_address)]


def _identifiers(settings: Settings) -> Identifiers:
    """How ids are shown; ends the command where the key of pseudonyms cannot be used."""
    try:
        return identifiers_of(settings, pseudonym_key(settings))
    except ConfigError as error:
        fail(str(error))


def _may_name(settings: Settings) -> bool:
    """Whether the user of this command can work out how ids are shown."""
    key_file = settings.privacy.key_file
    return settings.privacy.identifiers == "plain" or (key_file is not None and os.access(key_file, os.R_OK))


def _configure_log(settings: Settings) -> None:
    withhold = settings.privacy.identifiers == "pseudonym"
    log_output.configure(settings.log.level, settings.log.format, withhold=withhold)
    for warning in _warnings(settings):
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
    garbage.look_seldom()
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
