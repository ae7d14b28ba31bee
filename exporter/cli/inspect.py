"""Commands that look at what is there: ``verify``, ``check-config``, ``top`` and ``whois``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.beams.snapshot import BeamState
from exporter.cli import whois
from exporter.cli.check import check_connections
from exporter.cli.errors import fail
from exporter.cli.options import Flags, common_flags, identifiers_for, load_settings, settings_warnings
from exporter.cli.pattern_cost import findings
from exporter.cli.verify import text, verify
from exporter.config import ConfigError, Settings
from exporter.database.rights import code_in_folder_warning
from exporter.database.unavailable import DatabaseUnavailable
from exporter.logs.parser import SitePatterns
from exporter.privacy.pseudonyms import is_pseudonym
from exporter.runtime.pipeline import site_patterns
from exporter.runtime.privacy import pseudonym_key
from exporter.sources.source import LogProblem, SourceUnavailable
from exporter.web import web_config

if TYPE_CHECKING:
    from exporter.cli.top.readers import BeamReader


@click.command(name="verify")
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LOG...")
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of text.")
@common_flags
@click.pass_context
def verify_command(context: click.Context, logs: tuple[Path, ...], as_json: bool) -> None:
    """Say what would be read from these logs.

    Where there is a configuration, its patterns are used, and names of logs and their lines are redacted if it asks for
    pseudonyms. Exit status 1 when a log cannot be read or nothing in it is known.
    """
    flags: Flags = context.obj
    if not flags.configured:
        reports = [verify(log, SitePatterns()) for log in logs]
    else:
        settings = load_settings(flags)
        site, shown = site_patterns(settings), identifiers_for(settings)
        named = settings.privacy.identifiers == "plain"
        reports = [
            verify(log, site, shown, str(log) if named else f"log {number} of {len(logs)}")
            for number, log in enumerate(logs, 1)
        ]
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], ensure_ascii=False, indent=2))
    else:
        click.echo("\n\n".join(text(report) for report in reports))
    if not all(report.understood for report in reports):
        context.exit(1)


@click.command(name="check-config")
@click.option("--connect", is_flag=True, help="Try every source and the database, too.")
@common_flags
@click.pass_obj
def check_config(flags: Flags, connect: bool) -> None:
    """Check the configuration file; every mistake is named with file, line and key.

    With --connect, exit status 1 when a source or the database does not work.
    """
    settings = load_settings(flags)
    for warning in settings_warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    _check_patterns(settings)
    identifiers = identifiers_for(settings)
    if os.geteuid() != 0:  # root looks for an exporter of another user, as a rule
        web_file = settings.web.config_file
        checks: list[Callable[[], object]] = [flags.own_settings, lambda: pseudonym_key(settings)]
        if web_file is not None:
            checks.append(lambda: web_config.read_web_config(Path(web_file), "owned"))
        for check in checks:
            try:
                check()
            except ConfigError as error:
                click.echo(f"warning: {error}, unless the exporter runs as its owner", err=True)
    code = None if settings.database is None else code_in_folder_warning(settings.database.path)
    if code is not None:
        click.echo(f"warning: database.path: {code}", err=True)
    click.echo(f"{flags.path}: valid")
    if settings.web.config_file is not None:
        click.echo(f"{settings.web.config_file}: valid")
    if connect:
        works = True
        for finding in check_connections(settings, identifiers):
            click.echo(f"{finding.outcome}  {finding.text}")
            works = works and finding.outcome != "FAILED"
        if not works:
            sys.exit(1)


def _check_patterns(settings: Settings) -> None:
    """Warn of patterns that become slow on long lines; ends the command where one takes too long."""
    too_slow: list[str] = []
    for finding in findings(settings):
        said = str(settings.error_at((finding.location, finding.text)))
        if finding.cost.too_slow:
            too_slow.append(said)
        else:
            click.echo(f"warning: {said}", err=True)
    if too_slow:
        fail("\n".join(too_slow))


@click.command()
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
@common_flags
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
    from exporter.cli.top import terminal
    from exporter.cli.top.readers import Unavailable, login
    from exporter.cli.top.view import TopView

    if url is not None and database is not None:
        raise click.UsageError("--url and --database: name one of them")
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file: give both or none")
    view = TopView(sort=sort, text=text, state=state)
    try:
        credentials = None if user is None or password_file is None else login(user, password_file)
        reader = _top_reader(flags, url, database, credentials, ca_file)
        with contextlib.closing(reader):
            if as_json:
                beam_list = reader.read()
                beam_list = dataclasses.replace(beam_list, beams=tuple(view.select(beam_list.beams)))
                click.echo(json.dumps(beam_list.as_json(), ensure_ascii=False, indent=2, allow_nan=False))
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
) -> BeamReader:
    """Where `top` gets its beams; a configuration is read only where one is needed or there."""
    from exporter.cli.top.readers import ApiReader, FirstReader, TableReader, local_url

    if url is not None:
        return ApiReader(url, credentials=credentials, ca_file=ca_file)
    if database is None:
        # Who may not read the configuration can ask the exporter, which shows what it may.
        needed = flags.config_file is not None or os.access(flags.path, os.R_OK)
    else:
        # Whether the ids of a table may be shown is not known before the configuration has been read.
        needed = database == "" or flags.configured
    settings = load_settings(flags) if needed else None
    if database:
        shown = None if settings is None else identifiers_for(settings)
        return TableReader(Path(database), settings, identifiers=shown)
    own = None
    # Who may not read the key of pseudonyms sees what the exporter shows, and no more.
    if settings is not None and settings.database is not None and (database is not None or _may_name(settings)):
        own = TableReader(settings.database.path, settings, identifiers=identifiers_for(settings))
    if database is not None:
        if own is None:
            fail(f"{flags.path}: database.path is not set; name one with --database PATH")
        return own
    address = flags.listen_address or ("127.0.0.1:10813" if settings is None else settings.web.listen_address)
    web_file = flags.web_config_file or (None if settings is None else settings.web.config_file)
    tls = web_file is not None and web_config.serves_tls(Path(web_file))
    api = ApiReader(local_url(address, tls=tls), credentials=credentials, ca_file=ca_file)
    return api if own is None else FirstReader([api, own])


@click.command(name="whois")
@click.argument("pseudonyms", nargs=-1, required=True, metavar="PSEUDONYM...")
@common_flags
@click.pass_obj
def whois_command(flags: Flags, pseudonyms: tuple[str, ...]) -> None:
    """Say whose pseudonyms these are, for who may read the key file.

    The ids are looked for where beams are discovered. Who has asked for what is written to the system's log and to
    standard error. Exit status 1 when nobody has one of them, 2 when one is no pseudonym; the others are answered all
    the same.
    """
    settings = load_settings(flags)
    given = [pseudonym.strip().lower() for pseudonym in pseudonyms]
    asked = [pseudonym for pseudonym in given if is_pseudonym(pseudonym)]
    # What is none could be an id, which must not be logged.
    malformed = _no_pseudonyms([at for at, pseudonym in enumerate(given, 1) if not is_pseudonym(pseudonym)])
    if malformed is not None and not asked:
        raise malformed
    try:
        key = pseudonym_key(settings, any_owner=True)
    except ConfigError as error:
        fail(str(error))
    if key is None:
        fail(f"{flags.path}: privacy.identifiers is plain: ids are shown as they are, there are no pseudonyms")
    line = f"whois {' '.join(asked)} asked for by {whois.requesting_user()}"
    logged = whois.write_system_log(line)
    click.echo(line if logged else f"{line} (there is no system log to write this to)", err=True)
    try:
        found = whois.holders(asked, key, whois.every_id(settings))
    except (DatabaseUnavailable, LogProblem, SourceUnavailable) as error:
        fail(str(error))
    for holder in found:
        click.echo(str(holder))
    known = {holder.pseudonym for holder in found}
    strangers = [pseudonym for pseudonym in asked if pseudonym not in known]
    if strangers:
        click.echo(f"mqi-exporter: nobody that is known here now has {', '.join(strangers)}", err=True)
    if malformed is not None:
        raise malformed
    if strangers:
        sys.exit(1)


def _no_pseudonyms(positions: list[int]) -> click.UsageError | None:
    """The complaint about arguments of `whois` at these positions, from 1 on, which are no pseudonyms."""
    if not positions:
        return None
    which = " and ".join(filter(None, (", ".join(map(str, positions[:-1])), str(positions[-1]))))
    what = f"argument {which} is no pseudonym" if len(positions) == 1 else f"arguments {which} are no pseudonyms"
    return click.UsageError(f"{what}; one is case- or beam- and at least 12 letters and digits")


def _may_name(settings: Settings) -> bool:
    """Whether the user of this command can work out how ids are shown."""
    key_file = settings.privacy.key_file
    return settings.privacy.identifiers == "plain" or (key_file is not None and os.access(key_file, os.R_OK))
