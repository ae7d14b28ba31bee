"""The command ``top``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.beams.snapshot import BeamState
from exporter.cli.configuration import identifiers_for, load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, address_flags, examples
from exporter.config import DatabaseSettings, Settings
from exporter.web import web_config

if TYPE_CHECKING:
    from exporter.cli.top.readers import BeamReader


@click.command(epilog=examples("mqi-exporter top", "mqi-exporter top --url http://gpu1:10813 --once --state stalled"))
@click.option("--url", metavar="URL", help="Address of a running exporter.  [default: that of the configuration]")
@click.option(
    "--database",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Read the communicator's database; without PATH the one of the configuration.",
)
@click.option("--once", is_flag=True, help="Print once and end. This is the default without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="With --once: JSON with the names of /api/v1/beams.")
@click.option(
    "--sort", type=click.Choice(["state", "case", "progress", "left", "age"]), default="state", show_default=True
)
@click.option("--filter", "text", metavar="TEXT", default="", help="Only beams with this in an id, source or remark.")
@click.option("--state", type=click.Choice([state.value for state in BeamState]), help="Only beams in this state.")
@click.option("--interval", type=click.FloatRange(min=0.2, max=3600), default=2.0, show_default=True, metavar="SECONDS")
@click.option("--user", metavar="NAME", help="User name, if the exporter needs a password; with --password-file.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File whose first line is the password; only you may read it.",
)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file with the certificate authority of the exporter."
)
@address_flags
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
    """Show all beams in the terminal, live.

    Keys: q quit, s sort, / find text, f state, arrows scroll, escape shows all again, Ctrl-Z suspends. Without --url
    and --database the exporter of the configuration is asked, or else the database of the configuration.
    """
    from exporter.cli.top.readers import Unavailable, login
    from exporter.cli.top.screen import show_once
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
            elif once or not _is_interactive():
                show_once(reader, view)
            else:
                from exporter.cli.top.app import run_live

                sys.exit(run_live(reader, view, interval))
    except Unavailable as trouble:
        fail(str(trouble))


def _top_reader(
    flags: Flags,
    url: str | None,
    database: str | None,
    credentials: tuple[str, str] | None,
    ca_file: Path | None,
) -> BeamReader:
    """Return where `top` reads beams. The configuration is read only if it is needed or can be read."""
    from exporter.cli.top.readers import ApiReader, FirstReader, TableReader

    if url is not None:
        return ApiReader(url, credentials=credentials, ca_file=ca_file)
    if database is None:
        # A user who may not read the configuration can still ask the exporter.
        needed = flags.config_file is not None or os.access(flags.path, os.R_OK)
    else:
        # The configuration says whether ids of the table may be shown.
        needed = database == "" or flags.configured
    settings = load_settings(flags) if needed else None
    if database:
        shown = None if settings is None else identifiers_for(settings)
        return TableReader(DatabaseSettings(path=Path(database).absolute()), settings, identifiers=shown)
    own = None
    # A user who may not read the key of pseudonyms sees only what the exporter shows.
    if settings is not None and settings.database is not None and (database is not None or _may_name(settings)):
        own = TableReader(settings.database, settings, identifiers=identifiers_for(settings))
    if database is not None:
        if own is None:
            fail(f"{flags.path}: database.path is not set; name one with --database PATH")
        return own
    api = ApiReader(url_of_own_exporter(flags, settings), credentials=credentials, ca_file=ca_file)
    return api if own is None else FirstReader([api, own])


def url_of_own_exporter(flags: Flags, settings: Settings | None) -> str:
    """Where the exporter of the configuration serves its API.

    Args:
        flags: of the command.
        settings: the configuration, if it could be read.
    """
    from exporter.cli.top.readers import local_url

    address = flags.listen_address or ("127.0.0.1:10813" if settings is None else settings.web.listen_address)
    web_file = flags.web_config_file or (None if settings is None else settings.web.config_file)
    return local_url(address, tls=web_file is not None and web_config.serves_tls(Path(web_file)))


def _may_name(settings: Settings) -> bool:
    """Whether the user of this command may read the key of pseudonyms, if there is one."""
    key_file = settings.privacy.key_file
    return settings.privacy.identifiers == "plain" or (key_file is not None and os.access(key_file, os.R_OK))


def _is_interactive() -> bool:
    """Return whether standard input and output are a terminal that can show the live screen."""
    try:
        both = sys.stdin.isatty() and sys.stdout.isatty()
    except ValueError:  # closed
        return False
    return both and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
