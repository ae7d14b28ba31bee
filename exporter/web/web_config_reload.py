"""The web configuration in use, and its reload while the server runs.

New connections use the new certificate; others keep theirs until their response is complete. A broken or half-written
file is refused, and the old configuration stays in use. So is one that removes a protection, since it is most likely
half written.
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
from exporter.web.tls_section import TlsServer
from exporter.web.web_config import LoadedWebConfig, WebConfig, load_web_config, referenced_files

_LOG = structlog.get_logger(__name__)


class ActiveWebConfig:
    """The web configuration in use. Safe across threads.

    Args:
        path: the file; ``None`` for plain HTTP without passwords.
        count_error: called with ``web configuration`` at an unexpected error.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None = None, count_error: Callable[[str], None] = lambda where: None) -> None:
        self._path = path
        self._count_error = count_error
        self._lock = threading.Lock()
        self._stamps = self._file_stamps()
        self._loaded = load_web_config(path)
        self._refused: str | None = None
        self._generation = 0

    @property
    def configured(self) -> bool:
        """Whether there is a web configuration, whose files may change."""
        return self._path is not None

    @property
    def generation(self) -> int:
        """Number of reloads that changed the configuration."""
        return self._generation

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """TLS for new connections; ``None`` for plain HTTP."""
        return self._loaded.context

    @property
    def authenticates(self) -> bool:
        """Whether every client needs a password or a certificate."""
        return self._loaded.config.authenticates

    @property
    def users(self) -> Mapping[str, str]:
        """Users and their bcrypt hashes; if empty, no password is needed."""
        return self._loaded.config.basic_auth_users

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer."""
        return self._loaded.config.headers

    @property
    def allowed_client_names(self) -> frozenset[str]:
        """Names that are allowed in clients' certificates; empty: any."""
        section = self._loaded.config.tls_server_config
        return frozenset() if section is None else frozenset(section.client_allowed_sans)

    @property
    def certificate_expires_at(self) -> float | None:
        """When the server's certificate expires, UTC epoch seconds; ``None`` without TLS."""
        return self._loaded.certificate_expires_at

    @property
    def up_to_date(self) -> bool | None:
        """Whether the current files are in use; ``None`` without a web configuration."""
        return None if self._path is None else self._refused is None

    def refresh(self) -> bool:
        """Use the files if they have changed. Mistakes in them are logged once.

        Returns:
            Whether the configuration has changed.
        """
        try:
            return self.reload(only_if_changed=True)
        except ConfigError:
            return False

    def reload(self, *, only_if_changed: bool = False) -> bool:
        """Read the files again.

        Returns:
            Whether the configuration has changed.

        Raises:
            ConfigError: the files cannot be used; the old configuration stays in use.
        """
        with self._lock:
            if self._path is None:
                return False
            try:
                stamps = self._file_stamps()
                if only_if_changed and stamps == self._stamps and self._refused is None:
                    return False
                found = load_web_config(self._path)
                self._refuse_fewer_protections(found)
            except ConfigError as error:
                if self._refused != str(error):
                    _LOG.error("web configuration refused, the old one stays in use", error=SafeText(error))
                self._refused = str(error)
                raise
            except Exception as error:
                # Whatever it is, files that were not read must not seem to be in use.
                message = f"{self._path}: cannot be read ({type(error).__name__}); check it with `check-config`"
                if self._refused != message:
                    self._count_error("web configuration")
                    _LOG.error("web configuration cannot be read, the old one stays in use", exc_info=error)
                self._refused = message
                raise ConfigError([message]) from error
            changed = stamps != self._stamps
            self._loaded, self._stamps, self._refused = found, stamps, None
            self._generation += changed
        if changed:
            _LOG.info("web configuration read again")
        return changed

    def _refuse_fewer_protections(self, found: LoadedWebConfig) -> None:
        """Refuse a configuration in which any protection is missing, whatever else has changed."""
        removed = [f"{self._path}: {each}" for each in _removed_protections(self._loaded.config, found.config)]
        if removed:
            raise ConfigError(removed)

    def _file_stamps(self) -> tuple[tuple[str, object], ...]:
        """Stamps that change when one of the files does."""
        return () if self._path is None else tuple((path, _stamp(path)) for path in referenced_files(self._path))


def _removed_protections(before: WebConfig, after: WebConfig) -> Iterator[str]:
    """List the protections that are missing in the new configuration. Fewer names or users may be intended."""
    if before.basic_auth_users and not after.basic_auth_users:
        yield "basic_auth_users: the last user is removed; restart to serve without passwords"
    old, new = before.tls_server_config, after.tls_server_config
    if old is None or new is None:
        if old is not new:
            yield "tls_server_config: TLS is turned on and off at a restart only"
        return
    if _requires_certificates(old) and not _requires_certificates(new):
        yield "client_auth_type: clients would need no certificate any more; restart for that"
    elif old.client_allowed_sans and not new.client_allowed_sans:
        yield "client_allowed_sans: the last name is removed; restart to allow every certificate of the authority"
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
