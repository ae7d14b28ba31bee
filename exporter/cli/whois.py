"""Whose pseudonym it is: for somebody on this machine who may read the key file and what ids there are.

Ids are taken from where beams are discovered: the table, or the names of log files. Who has asked for which
pseudonyms is written to the system's log before anything is answered; the ids are not.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.config import Settings
from exporter.database.beams_table import BeamsTable
from exporter.database.discovery import DirectoryDiscovery, fault_of_row
from exporter.privacy.pseudonyms import PseudonymKey, matches_beam, matches_case
from exporter.runtime.pipeline import make_source

SYSTEM_LOG = Path("/dev/log")
_NOTICE_OF_AUTHPRIV = 10 * 8 + 5
"""Facility and severity: a log that only administrators read."""
_NO_LOGIN = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a pseudonym: a case, or a beam of one."""

    pseudonym: str
    case_id: str
    beam_id: str | None = None

    def __str__(self) -> str:
        of = f"case {self.case_id}" if self.beam_id is None else f"beam {self.beam_id} of case {self.case_id}"
        return f"{self.pseudonym} is {of}"


def every_id(settings: Settings) -> Iterator[tuple[str, str]]:
    """Case and beam of all beams that discovery could find, those that are over too.

    Raises:
        exporter.database.unavailable.DatabaseUnavailable: the table cannot be read.
        exporter.sources.source.LogProblem: a folder of logs cannot be listed.
        exporter.sources.source.SourceUnavailable: a source cannot be asked.
    """
    if settings.discovery.kind == "directory":
        for described in settings.sources:
            templates = settings.templates(described)
            with contextlib.closing(make_source(described, templates)) as source:
                folders = {template.folder for template in templates}
                files = {folder: source.listing(folder) for folder in sorted(folders)}
            for row in DirectoryDiscovery(settings.discovery.name_pattern).find_beams(0.0, files).rows:
                yield row.key.case_id, row.key.beam_id
    elif settings.database is not None:
        with contextlib.closing(BeamsTable(settings.database.path, alone_in_process=True)) as table:
            for beam in table.iter_rows():
                if fault_of_row(beam) is None:
                    yield str(beam.case_id), str(beam.beam_id)


def holders(pseudonyms: Sequence[str], key: PseudonymKey, ids: Iterable[tuple[str, str]]) -> list[Holder]:
    """Who has these pseudonyms, in the order of ``ids``; the beginning of a longer one finds all that begin so."""
    found: dict[Holder, None] = {}
    for case_id, beam_id in ids:
        for pseudonym in pseudonyms:
            if matches_case(pseudonym, key, case_id):
                found[Holder(pseudonym, case_id)] = None
            if matches_beam(pseudonym, key, beam_id):
                found[Holder(pseudonym, case_id, beam_id)] = None
    return list(found)


def requesting_user() -> str:
    """The user of this process, and of the login that it came from (``sudo`` changes only the first)."""
    uid = os.getuid()
    asking = f"user={_name(uid)} uid={uid}"
    try:
        login = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return asking  # not every kernel keeps it
    return asking if login == _NO_LOGIN else f"{asking} login={_name(login)} login_uid={login}"


def write_system_log(text: str) -> bool:
    """Write a line to the system's log.

    Returns:
        Whether there is one that took it.
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
