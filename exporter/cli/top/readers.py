"""Where ``top`` reads beams: the API of a running exporter, or the table ``beams``."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import requests
from requests.auth import HTTPBasicAuth

from exporter.beams.rules import StoreRules
from exporter.cli.top.beams import BeamList, TopBeam, from_api, printable
from exporter.config import DatabaseSettings, Settings
from exporter.config.listen_address import parse_listen_address
from exporter.config.sections import DiscoverySettings
from exporter.config.values import is_loopback
from exporter.database.discovery import fault_of_row
from exporter.database.open_table import open_table
from exporter.database.table_rows import TableRow
from exporter.database.unavailable import DatabaseUnavailable
from exporter.privacy.identifiers import Identifiers, PlainIdentifiers
from exporter.process.trusted_files import readable_by_others

API_PATH = "/api/v1/beams"
_CONNECT_SECONDS = 3.0
_READ_SECONDS = 10.0


class Unavailable(Exception):
    """Beams cannot be read now. The message says from where, why, and what to do."""


class BeamReader(Protocol):
    """Reads all beams. Used by one thread at a time."""

    def read(self) -> BeamList:
        """Return all beams.

        Raises:
            Unavailable: the beams cannot be read now; a later call may succeed.
        """
        ...

    def close(self) -> None:
        """Close connections and files."""
        ...


class ApiReader:
    """Reads beams from a running exporter.

    Args:
        url: of the exporter, such as ``http://127.0.0.1:10813``; a user and password in it are used and never shown.
        clock: returns UTC epoch seconds.
        credentials: user and password, instead of those in the URL.
        ca_file: PEM file of trusted authorities, instead of the system's.

    Raises:
        Unavailable: the URL or the file is invalid.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        *,
        credentials: tuple[str, str] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise Unavailable("--url is not a URL; write http://host:port") from None
        if parts.scheme not in ("http", "https") or not host:
            raise Unavailable("--url is not a URL; write http://host:port")
        shown_host = f"[{host}]" if ":" in host else host
        self.shown = f"{parts.scheme}://{shown_host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
        self._clock = clock
        self._session = requests.Session()
        if credentials is None and parts.username is not None:
            credentials = unquote(parts.username), unquote(parts.password or "")
        if credentials is not None:
            # As bytes, because requests encodes text as Latin-1.
            self._session.auth = HTTPBasicAuth(credentials[0].encode(), credentials[1].encode())
        self._verify: str | None = None  # None: by the environment, or the system
        if ca_file is not None:
            try:
                ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
                raise Unavailable(f"--ca-file {ca_file}: {why}") from None
            self._verify = str(ca_file)
        # No proxy for this machine.
        self._session.trust_env = not is_loopback(host)

    def read(self) -> BeamList:
        """See :class:`BeamReader`."""
        try:
            beam_list = from_api(self.get(API_PATH), self._clock(), self.shown)
        except ValueError:
            beam_list = None
        if beam_list is None:
            raise Unavailable(f"{self.shown}: {API_PATH} is no list of beams; is an exporter there?")
        return beam_list

    def get(self, path: str) -> Any:
        """Ask for one path of the API.

        Args:
            path: the path, percent-encoded.

        Returns:
            The answer, decoded from JSON; ``None`` where there is no such thing (404).

        Raises:
            Unavailable: no exporter answers there, or not so.
        """
        try:
            answer = self._session.get(
                f"{self.shown}{path}",
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
                verify=self._verify,
            )
        except requests.exceptions.SSLError:
            raise Unavailable(
                f"{self.shown}: its certificate is not trusted, or it wants one of yours; name its authority: --ca-file"
            ) from None
        except requests.exceptions.Timeout:
            raise Unavailable(f"{self.shown}: no answer in time") from None
        except requests.exceptions.RequestException:
            raise Unavailable(f"{self.shown}: no exporter answers; is it running, and there? (--url)") from None
        if answer.status_code == requests.codes.unauthorized:
            given = "knows no such user or password" if self._session.auth else "wants a user and password"
            raise Unavailable(f"{self.shown}: {given}: --user NAME --password-file FILE")
        if answer.status_code == requests.codes.not_found and path != API_PATH:
            return None
        if answer.status_code != requests.codes.ok:
            raise Unavailable(
                f"{self.shown}: {API_PATH} answers {answer.status_code}; is an exporter of this version there?"
            )
        try:
            return answer.json()
        except (ValueError, RecursionError):  # not JSON, nested too deeply, or numbers with too many digits
            raise Unavailable(f"{self.shown}: {API_PATH} is no list of beams; is an exporter there?") from None

    def close(self) -> None:
        """See :class:`BeamReader`."""
        self._session.close()


class TableReader:
    """Reads beams from the communicator's table: ids, status and progress only.

    Args:
        database: the database.
        settings: meaning of statuses; defaults without a configuration.
        identifiers: how ids are shown.
        clock: returns UTC epoch seconds.
    """

    def __init__(
        self,
        database: DatabaseSettings,
        settings: Settings | None = None,
        *,
        identifiers: Identifiers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._discovery = DiscoverySettings() if settings is None else settings.discovery
        self._retention_seconds = StoreRules().retention_seconds if settings is None else settings.retention_seconds
        self._identifiers = identifiers or PlainIdentifiers()
        self._clock = clock
        self._table = open_table(database, self._discovery)

    def read(self) -> BeamList:
        """See :class:`BeamReader`."""
        at = self._clock()
        try:
            stored = self._table.rows(at - self._retention_seconds)
            # A case with an open row is shown with all its rows, as by the exporter.
            known = {beam.beam_id for beam in stored}
            open_cases = {
                str(beam.case_id)
                for beam in stored
                if not self._table.is_terminal(beam.status) and fault_of_row(beam) is None
            }
            if open_cases:
                stored += [beam for beam in self._table.rows_of_cases(open_cases) if beam.beam_id not in known]
            note = "" if self._table.has_progress() else "the table has no column progress: mqi-exporter migrate"
        except DatabaseUnavailable as error:
            raise Unavailable(self._identifiers.problem(error)) from error
        beams = tuple(self._beam(beam) for beam in stored if fault_of_row(beam) is None)
        return BeamList(at, beams, printable(self._identifiers.path(self._table.name)), note)

    def close(self) -> None:
        """See :class:`BeamReader`."""
        self._table.close()

    def _beam(self, beam: TableRow) -> TopBeam:
        return TopBeam(
            case_id=printable(self._identifiers.case(str(beam.case_id))),
            beam_id=printable(self._identifiers.beam(str(beam.beam_id))),
            state=self._state(beam),
            progress_ratio=None if beam.progress is None else max(0.0, min(1.0, beam.progress / 100.0)),
            last_progress_at=beam.updated_at,
            status=None if beam.status is None else printable(self._identifiers.status(beam.status)),
        )

    def _state(self, beam: TableRow) -> str:
        """Return the state that a row suggests; no log was read."""
        if beam.status in self._discovery.completed_statuses:
            return "succeeded"
        if beam.status in self._discovery.terminal_statuses:
            return "failed"
        # The development plan's revision has no status for a running simulation; progress shows it.
        return "running" if beam.status in self._discovery.simulating_statuses or beam.progress else "waiting"


class FirstReader:
    """Tries several readers at each read and returns the first answer."""

    def __init__(self, readers: Sequence[BeamReader]) -> None:
        self._readers = readers

    def read(self) -> BeamList:
        """See :class:`BeamReader`."""
        troubles: list[str] = []
        for reader in self._readers:
            try:
                beam_list = reader.read()
            except Unavailable as trouble:
                troubles.append(str(trouble))
                continue
            notes = [*troubles, *([beam_list.note] if beam_list.note else [])]
            return BeamList(beam_list.at, beam_list.beams, beam_list.origin, "; ".join(notes))
        raise Unavailable("\n".join(troubles))

    def close(self) -> None:
        """See :class:`BeamReader`."""
        for reader in self._readers:
            reader.close()


def login(user: str, password_file: Path) -> tuple[str, str]:
    """Return the user, and the password from the first line of a file.

    Raises:
        Unavailable: the file has no password, or other users can read it.
    """
    try:
        with password_file.open(encoding="utf-8") as file:
            exposed = readable_by_others(password_file, os.fstat(file.fileno()))
            password = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise Unavailable(f"--password-file {password_file}: {why}") from None
    if exposed is not None:
        raise Unavailable(f"--password-file {exposed}")
    if not password:
        raise Unavailable(f"--password-file {password_file}: its first line is empty")
    return user, password


def local_url(listen_address: str, *, tls: bool = False) -> str:
    """Return the URL of a server on this machine that listens at an address."""
    host, port = parse_listen_address(listen_address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
