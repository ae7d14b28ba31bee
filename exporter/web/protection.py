"""The web configuration in use, and how a changed one comes into use while the server runs.

New connections get the certificate that is there now; those under way keep theirs until their answer is over. A file
that is broken, or half written, leaves the old one in use. So does one that takes the protection away: what looks like
that is mostly a file that is being written.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

import structlog

from exporter.config.document import ConfigError
from exporter.privacy.identifiers import Cleared
from exporter.web.web_config import Prepared, mentioned_files, prepare

_LOG = structlog.get_logger(__name__)


class Protection:
    """What protects the server now. Safe across threads.

    Args:
        path: the web configuration; ``None``: nothing is protected.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._look()
        self._now = prepare(path)
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
    def context(self) -> ssl.SSLContext | None:
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
    def allowed_names(self) -> frozenset[str]:
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
            seen = self._look()
            if self._path is None or (only_if_changed and seen == self._seen and self._refused is None):
                return False
            try:
                found = prepare(self._path)
                self._forbid_less(found)
            except ConfigError as error:
                if self._refused != str(error):
                    _LOG.error("web configuration refused, the old one stays in use", error=Cleared(error))
                self._refused = str(error)
                raise
            changed = seen != self._seen
            self._now, self._seen, self._refused = found, seen, None
            self._generation += changed
        if changed:
            _LOG.info("web configuration read again")
        return changed

    def _forbid_less(self, found: Prepared) -> None:
        before = self._now.config
        if (found.context is None) != (before.tls_server_config is None):
            raise ConfigError([f"{self._path}: tls_server_config: TLS is turned on and off at a restart only"])
        if before.basic_auth_users and not found.config.basic_auth_users:
            raise ConfigError([f"{self._path}: basic_auth_users: the last user is gone; restart to ask nobody"])
        if before.authenticates and not found.config.authenticates:
            raise ConfigError(
                [f"{self._path}: client_auth_type: clients need no certificate any more; restart for that"]
            )

    def _look(self) -> tuple[tuple[str, object], ...]:
        """What changes when one of the files does."""
        return () if self._path is None else tuple((path, _stamp(path)) for path in mentioned_files(self._path))


def _stamp(path: str) -> object:
    try:
        found = Path(path).stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
