"""Opens a connection to an SSH host: jump hosts, host key check, login, SFTP. Every failure has advice.

The host key must be known beforehand. An unknown, changed or revoked key is refused and never added. No command is
executed here or on the host, and no shell is opened, so an account restricted to ``internal-sftp`` is enough.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import paramiko
import structlog

from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh.files import UntrustedFile
from exporter.sources.ssh.host import WEAK_ALGORITHMS, SshHost
from exporter.sources.ssh.known_hosts import HostKeys, fingerprint, read_known_hosts
from exporter.sources.ssh.login import Credentials, log_in
from exporter.sources.ssh.sftp import SftpSession
from exporter.sources.ssh.sftp_messages import SftpError
from exporter.sources.ssh.target import LoginTarget, resolve_route

_log = structlog.get_logger(__name__)

_STEP_SECONDS = 0.2
"""Longest wait before checking whether the connection was closed."""
_WINDOW_BYTES = 16 << 20
"""Bytes that the host may send without waiting for us, enough for a fast link with 100 ms round trip."""

_SKIPPED_SHOWN = 5
_LOGGED_LIMIT = 1000
_logged_lines: set[str] = set()
"""Skipped lines of known_hosts files that were logged already, since every connection reads the files again."""


class _Transport(paramiko.Transport):
    """A connection that accepts plain host keys only, because host certificates cannot be checked."""

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return tuple(name for name in super().preferred_keys if "-cert-" not in name)


class SshConnection:
    """A connection with login and SFTP session.

    Args:
        host: how to reach the host.
    """

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._transports: list[paramiko.Transport] = []
        self._links: list[socket.socket] = []
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed.is_set()

    def open(self) -> SftpSession:
        """Connect and log in.

        Raises:
            SourceUnavailable: it failed. The message says why and what to do.
        """
        try:
            return self._open()
        except SourceUnavailable:
            raise
        except Exception as error:  # paramiko raises anything if close() interrupts it
            if not self._closed.is_set():
                raise
            shown = self._host.host
            raise SourceUnavailable("connection", f"the connection to {shown} was closed while it was made") from error

    def close(self) -> None:
        """Close the connection and those to its jump hosts. Any thread may call this to end a wait."""
        self._closed.set()
        endings = [each.close for each in reversed(self._transports)] + [link.close for link in self._links]
        for end in endings:
            # Errors no longer matter for a connection that is closed.
            with contextlib.suppress(Exception):
                end()

    def _open(self) -> SftpSession:
        hops = resolve_route(self._host)
        link: paramiko.Channel | None = None
        for number, target in enumerate(hops):
            transport = self._connect(target) if link is None else self._connect(target, link)
            if number + 1 == len(hops):
                return _sftp(transport, target)
            following = hops[number + 1]
            with _translate_errors(following):
                link = transport.open_channel(
                    "direct-tcpip",
                    (following.address, following.port),
                    ("", 0),
                    timeout=target.given.connect_timeout_seconds,
                )
        raise AssertionError("a route has at least the host itself")

    def _connect(self, target: LoginTarget, link: paramiko.Channel | None = None) -> paramiko.Transport:
        """Log in to a host.

        Args:
            target: the host.
            link: channel through the jump host; ``None`` to connect directly.
        """
        given = target.given
        known = _host_keys(target)
        disabled = [name for name in WEAK_ALGORITHMS if name not in given.allow_algorithms]
        with _translate_errors(target), contextlib.closing(Credentials(target)) as credentials:
            transport = _Transport(
                link or self._reach(target),
                disabled_algorithms={"ciphers": disabled, "macs": disabled},
            )
            self._transports.append(transport)
            if self._closed.is_set():
                transport.close()
            transport.banner_timeout = given.connect_timeout_seconds
            transport.auth_timeout = given.connect_timeout_seconds
            transport.channel_timeout = given.connect_timeout_seconds
            _prefer(transport, {key.type for key in known.trusted})
            transport.start_client(timeout=given.connect_timeout_seconds)
            if not transport.initial_kex_done:
                raise TimeoutError
            _check_host(target, known, transport.get_remote_server_key())
            log_in(transport, target, credentials)
            transport.set_keepalive(int(given.keepalive_seconds))
        return transport

    def _reach(self, target: LoginTarget) -> socket.socket:
        """Open a TCP connection. It waits in small steps so that :meth:`close` ends the wait."""
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
                # A batch of small requests must not wait for the acknowledgement of the previous one.
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.setblocking(True)
                self._links.append(link)
                return link
            link.close()
            if number != errno.EINPROGRESS:
                trouble = OSError(number, os.strerror(number))
        raise trouble


def _host_keys(target: LoginTarget) -> HostKeys:
    """Read the trusted keys of a host. Every connection reads the files again."""
    known = HostKeys()
    for path in target.known_hosts:
        try:
            known += read_known_hosts(path, target.known_as)
        except UntrustedFile as problem:
            raise SourceUnavailable("known_hosts", f"cannot trust {target.shown}: {problem}") from None
        except FileNotFoundError:
            if target.given.known_hosts_file is not None:
                raise SourceUnavailable(
                    "known_hosts", f"cannot trust {target.shown}: {path} does not exist; write the host's key there"
                ) from None
        except OSError as error:
            raise SourceUnavailable(
                "known_hosts",
                f"cannot read the trusted host keys in {path}: {error.strerror}; correct the file",
            ) from None
    _log_skipped(known)
    return known


def _log_skipped(known: HostKeys) -> None:
    """Log each unusable line once."""
    lines = [f"{line.where}: {line.reason}" for line in known.skipped]
    new = [each for each in lines if each not in _logged_lines]
    if not new:
        return
    if len(_logged_lines) > _LOGGED_LIMIT:
        _logged_lines.clear()
    _logged_lines.update(new)
    more = f" and {len(new) - _SKIPPED_SHOWN} more" if len(new) > _SKIPPED_SHOWN else ""
    _log.warning(
        "lines of known_hosts are skipped; correct or remove them", lines="; ".join(new[:_SKIPPED_SHOWN]) + more
    )


def _prefer(transport: paramiko.Transport, trusted: set[str]) -> None:
    """Prefer host keys of types that are trusted."""
    options = transport.get_security_options()
    types = [*options.key_types]
    wanted = [name for name in types if ("ssh-rsa" if name.startswith("rsa-sha2-") else name) in trusted]
    options.key_types = (*wanted, *(name for name in types if name not in wanted))


def _check_host(target: LoginTarget, known: HostKeys, key: paramiko.PKey) -> None:
    """Raise unless the host presented a trusted key."""
    blob = key.asbytes()
    shown = f"refused {target.shown}: its host key {key.get_name()} {fingerprint(blob)}"
    files = ", ".join(str(path) for path in target.known_hosts) or "no file"
    if (line := known.revocation(blob)) is not None:
        raise SourceUnavailable(
            "host_key_revoked", f"{shown} is revoked by {line}; ask the host's administrator for its new key"
        )
    if known.trusts(blob):
        return
    if known.trusted:
        raise SourceUnavailable(
            "host_key_changed",
            f"{shown} differs from the key in {files} ({known.trusted[0].where}); if the host was reinstalled, replace "
            "the old key there, else somebody may be intercepting the connection",
        )
    hints = [f"{line.where} was skipped: {line.reason}" for line in known.skipped if line.named][:1]
    if known.authorities:
        hints.append(
            f"{known.authorities[0]} trusts a certificate authority for it, but host certificates are not supported: "
            "add the host's plain key"
        )
    named = f" as {target.known_as}" if target.known_as != target.address else ""
    raise SourceUnavailable(
        "host_key_unknown",
        f"refused {target.shown}: its host key is in none of {files}{named}{''.join(f' ({hint})' for hint in hints)}; "
        f"ask the host's administrator whether {key.get_name()} {fingerprint(blob)} is its key, or check the output of "
        f"`ssh-keyscan -p {target.port} {target.address}`, and add it there",
    )


def open_sftp(client: paramiko.SSHClient, *, connect_timeout: float, operation_timeout: float) -> SftpSession:
    """Open an SFTP session over a connected client.

    Args:
        client: the client.
        connect_timeout: longest wait for the session, in seconds.
        operation_timeout: longest wait for an answer, in seconds.

    Raises:
        SftpError, OSError, EOFError, paramiko.SSHException: the session cannot be opened.
    """
    transport = client.get_transport()
    if transport is None or not transport.is_active():
        raise EOFError("the client is not connected")
    return _open_sftp(transport, connect_timeout, operation_timeout)


def _open_sftp(transport: paramiko.Transport, connect_timeout: float, operation_timeout: float) -> SftpSession:
    channel = transport.open_session(window_size=_WINDOW_BYTES, timeout=connect_timeout)
    channel.settimeout(operation_timeout)
    try:
        channel.invoke_subsystem("sftp")
        return SftpSession(channel)
    except BaseException:
        channel.close()
        raise


def _sftp(transport: paramiko.Transport, target: LoginTarget) -> SftpSession:
    """Open the host's SFTP subsystem."""
    given = target.given
    with _translate_errors(target):
        try:
            return _open_sftp(transport, given.connect_timeout_seconds, given.operation_timeout_seconds)
        except (paramiko.ChannelException, SftpError) as error:
            refused: Exception = error
        except paramiko.SSHException as error:
            # This is the library's message when the host refuses the subsystem.
            if "closed" not in str(error):
                raise
            refused = error
        raise SourceUnavailable(
            "sftp", f"{target.shown} offers no SFTP ({refused}); allow `Subsystem sftp internal-sftp` there"
        )


@contextlib.contextmanager
def _translate_errors(target: LoginTarget) -> Iterator[None]:
    """Turn every failure of a connection into one sentence with advice."""
    given, shown = target.given, target.shown
    try:
        yield
    except SourceUnavailable:
        raise
    except paramiko.ChannelException as error:
        raise SourceUnavailable(
            "unreachable", f"cannot reach {shown} through its jump host: {error}; check ProxyJump and the host"
        ) from None
    except paramiko.SSHException as error:
        algorithms = "; the host offers weak algorithms only: update it, or name one in allow_algorithms"
        advice = algorithms if "acceptable" in str(error) else "; the exporter tries again"
        raise SourceUnavailable("protocol", f"cannot talk to {shown}: {error}{advice}") from None
    except socket.gaierror as error:
        raise SourceUnavailable("unknown_name", f"cannot find {target.address}: {error.strerror}; check host") from None
    except UnicodeError:
        raise SourceUnavailable("unknown_name", f"{target.address!r} is not the name of a host; check host") from None
    except TimeoutError:
        limit = given.connect_timeout_seconds
        raise SourceUnavailable(
            "timeout", f"{shown} does not answer within {limit:g} s; check the host and the network between"
        ) from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "the host has ended the connection"
        raise SourceUnavailable(
            "unreachable", f"cannot reach {shown}: {reason}; check the host and the network between"
        ) from None
