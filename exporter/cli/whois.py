"""The command ``whois``: finds the ids behind pseudonyms, for a user who may read the key file.

It compares the pseudonyms with all ids that discovery can find: in the table, or in the names of log files. The request
and the user are written to the system log before the answer is printed; the ids are not.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from exporter.cli.configuration import load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, config_flag, examples
from exporter.config import ConfigError, Settings
from exporter.database.discovery import DirectoryDiscovery, fault_of_row
from exporter.database.open_table import open_table
from exporter.database.unavailable import DatabaseUnavailable
from exporter.privacy.pseudonyms import PseudonymKey, is_pseudonym, matches_beam, matches_case
from exporter.runtime.privacy import pseudonym_key
from exporter.sources.source import LogProblem, SourceUnavailable

SYSTEM_LOG = Path("/dev/log")
_NOTICE_OF_AUTHPRIV = 10 * 8 + 5
"""Facility and severity of the line, so that only administrators read it."""
_NO_LOGIN = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Holder:
    """The case or beam behind a pseudonym."""

    pseudonym: str
    case_id: str
    beam_id: str | None = None

    def __str__(self) -> str:
        of = f"case {self.case_id}" if self.beam_id is None else f"beam {self.beam_id} of case {self.case_id}"
        return f"{self.pseudonym} is {of}"


def every_id(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield case and beam id of all beams that discovery can find, including those that are over.

    Raises:
        exporter.database.unavailable.DatabaseUnavailable: the table cannot be read.
        exporter.sources.source.LogProblem: a folder of logs cannot be listed.
        exporter.sources.source.SourceUnavailable: a source cannot be reached.
    """
    if settings.discovery.kind == "directory":
        from exporter.runtime.pipeline import make_source

        for described in settings.sources:
            templates = settings.templates(described)
            with contextlib.closing(make_source(described, templates)) as source:
                folders = {template.folder for template in templates}
                files = {folder: source.listing(folder) for folder in sorted(folders)}
            for row in DirectoryDiscovery(settings.discovery.name_pattern).find_beams(0.0, files).rows:
                yield row.key.case_id, row.key.beam_id
    elif settings.database is not None:
        with contextlib.closing(open_table(settings.database)) as table:
            for beam in table.iter_rows():
                if fault_of_row(beam) is None:
                    yield str(beam.case_id), str(beam.beam_id)


def holders(pseudonyms: Sequence[str], key: PseudonymKey, ids: Iterable[tuple[str, str]]) -> list[Holder]:
    """Return the ids behind these pseudonyms, in the order of ``ids``.

    A shortened pseudonym finds every id whose pseudonym begins with it.
    """
    found: dict[Holder, None] = {}
    for case_id, beam_id in ids:
        for pseudonym in pseudonyms:
            if matches_case(pseudonym, key, case_id):
                found[Holder(pseudonym, case_id)] = None
            if matches_beam(pseudonym, key, beam_id):
                found[Holder(pseudonym, case_id, beam_id)] = None
    return list(found)


def requesting_user() -> str:
    """Return the user of this process, and the user who logged in (they differ after ``sudo``)."""
    uid = os.getuid()
    asking = f"user={_name(uid)} uid={uid}"
    try:
        login = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return asking  # not every kernel has it
    return asking if login == _NO_LOGIN else f"{asking} login={_name(login)} login_uid={login}"


def write_system_log(text: str) -> bool:
    """Write a line to the system log.

    Returns:
        Whether a system log accepted the line.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.connect(str(SYSTEM_LOG))
            log.send(f"<{_NOTICE_OF_AUTHPRIV}>mqi-exporter[{os.getpid()}]: {text}".encode())
    except OSError:
        return False
    return True


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "unknown"


@click.command(name="whois", epilog=examples("mqi-exporter whois c-9f86d081884c7d65"))
@click.argument("pseudonyms", nargs=-1, required=True, metavar="PSEUDONYM...")
@config_flag
@click.pass_obj
def whois_command(flags: Flags, pseudonyms: tuple[str, ...]) -> None:
    """Show the ids behind these pseudonyms. Needs read access to the key file.

    All ids that discovery finds are compared. The request is written to the system log and to standard error. Exit
    status 1 if a pseudonym matches nothing, 2 if an argument is not a pseudonym; the others are answered anyway.
    """
    settings = load_settings(flags)
    given = [pseudonym.strip().lower() for pseudonym in pseudonyms]
    asked = [pseudonym for pseudonym in given if is_pseudonym(pseudonym)]
    # An argument that is not a pseudonym could be an id, which must not be logged.
    malformed = _no_pseudonyms([at for at, pseudonym in enumerate(given, 1) if not is_pseudonym(pseudonym)])
    if malformed is not None and not asked:
        raise malformed
    try:
        key = pseudonym_key(settings, any_owner=True)
    except ConfigError as error:
        fail(str(error))
    if key is None:
        fail(f"{flags.path}: privacy.identifiers is plain: ids are shown as they are, there are no pseudonyms")
    line = f"whois {' '.join(asked)} asked for by {requesting_user()}"
    logged = write_system_log(line)
    click.echo(line if logged else f"{line} (there is no system log to write this to)", err=True)
    try:
        found = holders(asked, key, every_id(settings))
    except (DatabaseUnavailable, LogProblem, SourceUnavailable) as error:
        fail(str(error))
    for holder in found:
        click.echo(str(holder))
    known = {holder.pseudonym for holder in found}
    strangers = [pseudonym for pseudonym in asked if pseudonym not in known]
    if strangers:
        click.echo(f"mqi-exporter: no case or beam matches {', '.join(strangers)}", err=True)
    if malformed is not None:
        raise malformed
    if strangers:
        sys.exit(1)


def _no_pseudonyms(positions: list[int]) -> click.UsageError | None:
    """Return the error for arguments of `whois` that are not pseudonyms, given their positions from 1 on."""
    if not positions:
        return None
    which = " and ".join(filter(None, (", ".join(map(str, positions[:-1])), str(positions[-1]))))
    what = f"argument {which} is no pseudonym" if len(positions) == 1 else f"arguments {which} are no pseudonyms"
    return click.UsageError(f"{what}; one is case- or beam- and at least 12 letters and digits")
