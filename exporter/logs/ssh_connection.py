"""One connection to an SSH host: who we are, whom we trust, and what to do when it does not work.

The host's key must be known beforehand: an unknown or changed key is refused and never added. No command is executed on
the host and no shell is opened: an account restricted to ``internal-sftp`` is enough.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko

from exporter.accounts import own_user
from exporter.logs.sftp import SftpError, SftpSession
from exporter.logs.source import SourceUnavailable
from exporter.logs.ssh_host import SshHost

_STEP_SECONDS = 0.2
_WINDOW_BYTES = 16 << 20
"""How much the host may send before it waits for us: a long line with 100 ms round trip still fills."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A host with its alias resolved."""

    given: SshHost
    address: str
    port: int
    user: str
    key_files: tuple[Path, ...]
    known_hosts: tuple[Path, ...]
    jump: str | None

    @property
    def shown(self) -> str:
        """The target as people write it."""
        return f"{self.user}@{self.address}" + (f" port {self.port}" if self.port != 22 else "")


class SshConnection:
    """A logged-in connection with an SFTP session.

    Args:
        host: how to reach it.
    """

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._clients: list[paramiko.SSHClient] = []
        self._links: list[socket.socket] = []
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether it was ended from here."""
        return self._closed.is_set()

    def open(self) -> SftpSession:
        """Connect and log in.

        Raises:
            SourceUnavailable: it cannot be had; says why, and what to do.
        """
        target = _resolve(self._host)
        try:
            return _sftp(self._connect(target), target)
        except SourceUnavailable:
            raise
        except Exception as error:  # paramiko trips over what close() has taken from under it
            if not self._closed.is_set():
                raise
            raise SourceUnavailable("connection", f"{target.shown} was given up while it was connected to") from error

    def close(self) -> None:
        """End the connection, and those it went through. May be called from any thread, to end a wait."""
        self._closed.set()
        endings = [client.close for client in reversed(self._clients)] + [link.close for link in self._links]
        for end in endings:
            # Whatever is wrong with a connection that is given up is of no more interest.
            with contextlib.suppress(Exception):
                end()

    def _connect(self, target: _Target) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        self._clients.append(client)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for key_file in target.key_files:
            _check_key(key_file, target)
        for path in target.known_hosts:
            _check_trusted(path, target)
            try:
                client.load_host_keys(str(path))
            except FileNotFoundError:
                if target.given.known_hosts_file is not None:
                    raise SourceUnavailable(
                        "known_hosts", f"cannot trust {target.shown}: {path} does not exist; write the host's key there"
                    ) from None
            except (OSError, ValueError, paramiko.SSHException) as error:
                raise SourceUnavailable(
                    "known_hosts", f"cannot read the trusted host keys in {path}: {error}; correct the file"
                ) from None
        given = target.given
        with _explained(target):
            link = self._through(target) if target.jump else self._reach(target)
            client.connect(
                target.address,
                target.port,
                target.user,
                password=_secret(given.password_file),
                pkey=None,
                # A list is allowed (and documented); the stubs know only one name.
                key_filename=[str(path) for path in target.key_files] or None,  # type: ignore[arg-type]
                passphrase=_secret(given.passphrase_file),
                allow_agent=given.use_agent,
                look_for_keys=False,
                sock=link,
                timeout=given.connect_timeout_seconds,
                banner_timeout=given.connect_timeout_seconds,
                auth_timeout=given.connect_timeout_seconds,
                channel_timeout=given.connect_timeout_seconds,
            )
        transport = client.get_transport()
        assert transport is not None, "connect() leaves one or raises"
        transport.set_keepalive(int(given.keepalive_seconds))
        return client

    def _reach(self, target: _Target) -> socket.socket:
        """A TCP connection, waited for in small steps so that :meth:`close` ends the wait."""
        deadline = time.monotonic() + target.given.connect_timeout_seconds
        trouble: OSError = TimeoutError()
        for family, kind, protocol, _, address in socket.getaddrinfo(
            target.address, target.port, type=socket.SOCK_STREAM
        ):
            link = socket.socket(family, kind, protocol)
            link.setblocking(False)
            number = link.connect_ex(address)
            while number == errno.EINPROGRESS and time.monotonic() < deadline and not self._closed.is_set():
                if select.select([], [link], [], _STEP_SECONDS)[1]:
                    number = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                # A batch of small questions must not wait until the one before has been acknowledged.
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.setblocking(True)
                self._links.append(link)
                return link
            link.close()
            if number != errno.EINPROGRESS:
                trouble = OSError(number, os.strerror(number))
        raise trouble

    def _through(self, target: _Target) -> paramiko.Channel:
        """A channel to the target from the hosts of its ``ProxyJump``."""
        assert target.jump is not None
        *before, last = target.jump.split(",")
        user, _, rest = last.strip().rpartition("@")
        name, _, port = rest.partition(":")
        via = _resolve(replace(target.given, host=name, port=int(port) if port.isdigit() else None, user=user or None))
        if before:
            via = replace(via, jump=",".join(before))
        client = self._connect(via)
        transport = client.get_transport()
        assert transport is not None, "connect() leaves one or raises"
        with _explained(target):
            return transport.open_channel(
                "direct-tcpip", (target.address, target.port), ("", 0), timeout=target.given.connect_timeout_seconds
            )


def _resolve(host: SshHost) -> _Target:
    """The host with what the OpenSSH configuration says of it."""
    entry: dict[str, object] = {}
    if host.ssh_config_file is not None:
        try:
            entry = dict(paramiko.SSHConfig.from_path(str(host.ssh_config_file)).lookup(host.host))
        except (OSError, UnicodeDecodeError, paramiko.SSHException) as error:
            raise SourceUnavailable(
                "ssh_config", f"cannot read {host.ssh_config_file} for host {host.host}: {error}; correct the file"
            ) from None
    if entry.get("proxycommand"):
        raise SourceUnavailable(
            "ssh_config",
            f"host {host.host} has a ProxyCommand in {host.ssh_config_file}: no command is executed; use ProxyJump",
        )
    identities = entry.get("identityfile") or []
    assert isinstance(identities, list)
    known = str(entry.get("userknownhostsfile") or "").split()
    jump = str(entry.get("proxyjump") or "")
    return _Target(
        given=host,
        address=str(entry.get("hostname") or host.host),
        port=host.port or int(str(entry.get("port") or 22)),
        user=host.user or str(entry.get("user") or getpass.getuser()),
        key_files=(host.key_file,) if host.key_file else tuple(Path(name).expanduser() for name in identities),
        known_hosts=_known_hosts(host.known_hosts_file, known),
        jump=jump if jump.lower() not in ("", "none") else None,
    )


def _known_hosts(given: Path | None, of_alias: list[str]) -> tuple[Path, ...]:
    if given is not None:
        return (given,)
    if of_alias:
        return tuple(Path(name).expanduser() for name in of_alias)
    return Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts")


def _check_key(path: Path, target: _Target) -> None:
    """A private key that others can read is no secret."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SourceUnavailable(
            "key_file", f"cannot log in to {target.shown}: key file {path}: {error.strerror}; check key_file"
        ) from None
    if mode & 0o077:
        raise SourceUnavailable(
            "key_file",
            f"cannot log in to {target.shown}: {path} can be read by others than its owner; run `chmod 600 {path}`",
        )


def _check_trusted(path: Path, target: _Target) -> None:
    """Who can write the trusted host keys decides whom we trust."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # said when it is read, if it must be there
    if mode & 0o002:
        raise SourceUnavailable(
            "known_hosts", f"cannot trust {target.shown}: everybody may write {path}; run `chmod o-w {path}`"
        )


def _secret(path: Path | None) -> str | None:
    """The secret in a file, which nobody else may read."""
    if path is None:
        return None
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SourceUnavailable("secret", f"{path} can be read by others than its owner; run `chmod 600 {path}`")
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnavailable("secret", f"cannot read the secret in {path}: {error}; correct the file") from None


def open_sftp(client: paramiko.SSHClient, *, connect_timeout: float, operation_timeout: float) -> SftpSession:
    """An SFTP session over a connected client.

    Args:
        client: the client.
        connect_timeout: longest wait for the session, seconds.
        operation_timeout: longest wait for an answer in it, seconds.

    Raises:
        SftpError, OSError, EOFError, paramiko.SSHException: there is none to be had.
    """
    transport = client.get_transport()
    if transport is None or not transport.is_active():
        raise EOFError("the client is not connected")
    channel = transport.open_session(window_size=_WINDOW_BYTES, timeout=connect_timeout)
    channel.settimeout(operation_timeout)
    try:
        channel.invoke_subsystem("sftp")
        return SftpSession(channel)
    except BaseException:
        channel.close()
        raise


def _sftp(client: paramiko.SSHClient, target: _Target) -> SftpSession:
    """Ask for the host's SFTP subsystem."""
    given = target.given
    with _explained(target):
        try:
            return open_sftp(
                client,
                connect_timeout=given.connect_timeout_seconds,
                operation_timeout=given.operation_timeout_seconds,
            )
        except (paramiko.ChannelException, SftpError) as error:
            refused: Exception = error
        except paramiko.SSHException as error:
            # The library says so when the host refuses the subsystem.
            if "closed" not in str(error):
                raise
            refused = error
        raise SourceUnavailable(
            "sftp", f"{target.shown} offers no SFTP ({refused}); allow `Subsystem sftp internal-sftp` there"
        )


@contextlib.contextmanager
def _explained(target: _Target) -> Iterator[None]:
    """What goes wrong with a connection, as one sentence that says what to do."""
    given, shown = target.given, target.shown
    keys = ", ".join(str(path) for path in target.key_files) or "no key file"
    trusted = ", ".join(str(path) for path in target.known_hosts)
    try:
        yield
    except SourceUnavailable:
        raise
    except paramiko.BadHostKeyException as error:
        raise SourceUnavailable(
            "host_key_changed",
            f"refused {shown}: its host key {error.key.get_name()} {error.key.fingerprint} is not that in {trusted}; "
            "if the host was set up anew, remove the old key there and add the new one, else somebody is in between",
        ) from None
    except paramiko.PasswordRequiredException:
        raise SourceUnavailable(
            "key_file", f"cannot log in to {shown}: the key in {keys} is encrypted; set passphrase_file"
        ) from None
    except paramiko.AuthenticationException as error:
        raise SourceUnavailable(
            "authentication",
            f"cannot log in to {shown} with {keys}: {error}; check the user, and that the public key is in the "
            "account's authorized_keys",
        ) from None
    except paramiko.SSHException as error:
        if "No authentication methods available" in str(error):
            raise SourceUnavailable(
                "authentication",
                f"cannot log in to {shown}: there is nothing to log in with; set key_file, or use_agent",
            ) from None
        if "not found in known_hosts" in str(error):
            raise SourceUnavailable(
                "host_key_unknown",
                f"refused {shown}: its host key is in none of {trusted}; ask the host's administrator for it, or check "
                f"the output of `ssh-keyscan -p {target.port} {target.address}`, and add it there",
            ) from None
        if "key" in str(error).lower():
            raise SourceUnavailable(
                "key_file", f"cannot use {keys} for {shown}: {error}; check key_file and passphrase_file"
            ) from None
        raise SourceUnavailable("protocol", f"cannot talk to {shown}: {error}; it is tried again") from None
    except socket.gaierror as error:
        raise SourceUnavailable("unknown_name", f"cannot find {target.address}: {error.strerror}; check host") from None
    except TimeoutError:
        limit = given.connect_timeout_seconds
        raise SourceUnavailable(
            "timeout", f"{shown} does not answer within {limit:g} s; check the host and the network between"
        ) from None
    except FileNotFoundError as error:
        raise SourceUnavailable("key_file", f"cannot log in to {shown}: no key file {error.filename}") from None
    except (OSError, EOFError) as error:
        if isinstance(error, PermissionError) and error.filename is not None:
            raise SourceUnavailable(
                "key_file",
                f"cannot log in to {shown}: {error.filename} cannot be read; it must be the exporter's own: run "
                f"`chown {own_user()} {error.filename}`",
            ) from None
        reason = getattr(error, "strerror", None) or str(error) or "the host has ended the connection"
        raise SourceUnavailable(
            "unreachable", f"cannot reach {shown}: {reason}; check the host and the network between"
        ) from None
    except (ValueError, TypeError) as error:
        raise SourceUnavailable("key_file", f"cannot use {keys} for {shown}: {error}; check key_file") from None
