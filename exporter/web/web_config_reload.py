"""The web configuration in use, and how a changed one comes into use while the server runs.

New connections get the certificate that is there now; those under way keep theirs until their answer is over. A file
that is broken, or half written, leaves the old one in use. So does one that takes a protection away, whatever else
stays: what looks like that is mostly a file that is being written.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import structlog

from exporter.config.document import ConfigError
from exporter.privacy.identifiers import SafeText
from exporter.web.tls import VERIFY_MODES, VERSIONS
from exporter.web.web_config import LoadedWebConfig, TlsServer, WebConfig, load_web_config, referenced_files

_LOG = structlog.get_logger(__name__)


class ActiveWebConfig:
    """What protects the server now. Safe across threads.

    Args:
        path: the web configuration; ``None``: nothing is protected.
        count_error: told ``web configuration`` when reading it has raised something unexpected.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: Path | None = None, count_error: Callable[[str], None] = lambda where: None) -> None:
        self._path = path
        self._count_error = count_error
        self._lock = threading.Lock()
        self._seen = self._look()
        self._now = load_web_config(path)
        self._refused: str | None = None
        self._generation = 0

    @property
    def configured(self) -> bool:
        """Whether there is a web configuration, whose files may change."""
        return self._path is not None

    @property
    def generation(self) -> int:
        """How often another configuration has come into use."""
        return self._generation

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """TLS for a connection that begins now; ``None`` for plain HTTP."""
        return self._now.context

    @property
    def authenticates(self) -> bool:
        """Whether nobody gets an answer without a password or a certificate."""
        return self._now.config.authenticates

    @property
    def users(self) -> Mapping[str, str]:
        """Users and their bcrypt hashes; none: no password is asked for."""
        return self._now.config.basic_auth_users

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer."""
        return self._now.config.headers

    @property
    def allowed_client_names(self) -> frozenset[str]:
        """Of which a client's certificate must have one; empty: any."""
        section = self._now.config.tls_server_config
        return frozenset() if section is None else frozenset(section.client_allowed_sans)

    @property
    def certificate_expires_at(self) -> float | None:
        """When the server's certificate is over, UTC epoch seconds; ``None`` without TLS."""
        return self._now.certificate_expires_at

    @property
    def up_to_date(self) -> bool | None:
        """Whether the files as they are now are in use; ``None`` where there are none."""
        return None if self._path is None else self._refused is None

    def refresh(self) -> bool:
        """Look at the files, and use them if they have changed. What is wrong with them is logged, once.

        Returns:
            Whether others are in use than before.
        """
        try:
            return self.reload(only_if_changed=True)
        except ConfigError:
            return False

    def reload(self, *, only_if_changed: bool = False) -> bool:
        """Read the files again.

        Returns:
            Whether others are in use than before.

        Raises:
            ConfigError: they cannot be used; the old ones stay in use.
        """
        with self._lock:
            if self._path is None:
                return False
            try:
                seen = self._look()
                if only_if_changed and seen == self._seen and self._refused is None:
                    return False
                found = load_web_config(self._path)
                self._forbid_less(found)
            except ConfigError as error:
                if self._refused != str(error):
                    _LOG.error("web configuration refused, the old one stays in use", error=SafeText(error))
                self._refused = str(error)
                raise
            except Exception as error:
                # Whatever it is: what was not read must not look as if it were in use.
                said = f"{self._path}: cannot be read ({type(error).__name__}); check it with `check-config`"
                if self._refused != said:
                    self._count_error("web configuration")
                    _LOG.error("web configuration cannot be read, the old one stays in use", exc_info=error)
                self._refused = said
                raise ConfigError([said]) from error
            changed = seen != self._seen
            self._now, self._seen, self._refused = found, seen, None
            self._generation += changed
        if changed:
            _LOG.info("web configuration read again")
        return changed

    def _forbid_less(self, found: LoadedWebConfig) -> None:
        """Each protection stands for itself: that another one stays says nothing of why this one went."""
        less = [f"{self._path}: {said}" for said in _taken_away(self._now.config, found.config)]
        if less:
            raise ConfigError(less)

    def _look(self) -> tuple[tuple[str, object], ...]:
        """What changes when one of the files does."""
        return () if self._path is None else tuple((path, _stamp(path)) for path in referenced_files(self._path))


def _taken_away(before: WebConfig, after: WebConfig) -> Iterator[str]:
    """What protected and would not any more. Where names or users are fewer nobody can tell whether that is meant."""
    if before.basic_auth_users and not after.basic_auth_users:
        yield "basic_auth_users: the last user is gone; restart to ask nobody"
    old, new = before.tls_server_config, after.tls_server_config
    if old is None or new is None:
        if old is not new:
            yield "tls_server_config: TLS is turned on and off at a restart only"
        return
    if _requires_certificates(old) and not _requires_certificates(new):
        yield "client_auth_type: clients need no certificate any more; restart for that"
    elif old.client_allowed_sans and not new.client_allowed_sans:
        yield "client_allowed_sans: the last name is gone; restart to allow every certificate of the authority"
    if VERSIONS[new.min_version] < VERSIONS[old.min_version]:
        yield f"min_version: {new.min_version} is older than {old.min_version}, which is in use; restart for that"


def _requires_certificates(section: TlsServer) -> bool:
    return VERIFY_MODES[section.client_auth_type] is ssl.CERT_REQUIRED


def _stamp(path: str) -> object:
    try:
        found = Path(path).stat()
    except OSError as error:
        return error.errno
    except ValueError as error:  # no file can have such a name
        return str(error)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
