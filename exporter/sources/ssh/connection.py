"""One connection to an SSH host: who we are, whom we trust, and what to do when it does not work.

The host's key must be known beforehand: an unknown, changed or revoked key is refused and never added. No command is
executed, here or on the host, and no shell is opened: an account restricted to ``internal-sftp`` is enough.
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
from exporter.sources.ssh.sftp import SftpError, SftpSession
from exporter.sources.ssh.target import Target, resolve_route

_log = structlog.get_logger(__name__)

_STEP_SECONDS = 0.2
_WINDOW_BYTES = 16 << 20
"""How much the host may send before it waits for us: a long line with 100 ms round trip still fills."""

_SKIPPED_SHOWN = 5
_SAID_LIMIT = 1000
_said: set[str] = set()
"""Skipped lines of known_hosts files that have been logged; every connection reads the files anew."""


class _Transport(paramiko.Transport):
    """A connection that asks for plain host keys only: host certificates cannot be checked."""

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return tuple(name for name in super().preferred_keys if "-cert-" not in name)


class SshConnection:
    """A logged-in connection with an SFTP session.

    Args:
        host: how to reach it.
    """

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._transports: list[paramiko.Transport] = []
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
        try:
            return self._open()
        except SourceUnavailable:
            raise
        except Exception as error:  # paramiko trips over what close() has taken from under it
            if not self._closed.is_set():
                raise
            shown = self._host.host
            raise SourceUnavailable("connection", f"{shown} was given up while it was connected to") from error

    def close(self) -> None:
        """End the connection, and those it went through. May be called from any thread, to end a wait."""
        self._closed.set()
        endings = [each.close for each in reversed(self._transports)] + [link.close for link in self._links]
        for end in endings:
            # Whatever is wrong with a connection that is given up is of no more interest.
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
            with _explained(following):
                link = transport.open_channel(
                    "direct-tcpip",
                    (following.address, following.port),
                    ("", 0),
                    timeout=target.given.connect_timeout_seconds,
                )
        raise AssertionError("a route has at least the host itself")

    def _connect(self, target: Target, link: paramiko.Channel | None = None) -> paramiko.Transport:
        """Log in to a host.

        Args:
            target: the host.
            link: what leads to it; ``None`` where a connection is to be made.
        """
        given = target.given
        known = _host_keys(target)
        disabled = [name for name in WEAK_ALGORITHMS if name not in given.allow_algorithms]
        with _explained(target), contextlib.closing(Credentials(target)) as credentials:
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

    def _reach(self, target: Target) -> socket.socket:
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


def _host_keys(target: Target) -> HostKeys:
    """What the trusted files say of a host; read anew for every connection."""
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
    _say_skipped(known)
    return known


def _say_skipped(known: HostKeys) -> None:
    """Say once of each line that cannot be used that it is skipped."""
    news = [f"{line.where}: {line.reason}" for line in known.skipped]
    news = [each for each in news if each not in _said]
    if not news:
        return
    if len(_said) > _SAID_LIMIT:
        _said.clear()
    _said.update(news)
    more = f" and {len(news) - _SKIPPED_SHOWN} more" if len(news) > _SKIPPED_SHOWN else ""
    _log.warning(
        "lines of known_hosts are skipped; correct or remove them", lines="; ".join(news[:_SKIPPED_SHOWN]) + more
    )


def _prefer(transport: paramiko.Transport, trusted: set[str]) -> None:
    """Ask the host for a key of a type that is trusted, where there is one."""
    options = transport.get_security_options()
    types = [*options.key_types]
    wanted = [name for name in types if ("ssh-rsa" if name.startswith("rsa-sha2-") else name) in trusted]
    options.key_types = (*wanted, *(name for name in types if name not in wanted))


def _check_host(target: Target, known: HostKeys, key: paramiko.PKey) -> None:
    """Refuse a host that does not show a trusted key."""
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
            f"{shown} is not that in {files} ({known.trusted[0].where}); if the host was set up anew, remove the old "
            "key there and add the new one, else somebody is in between",
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
        f"ask the host's administrator whether {key.get_name()} {fingerprint(blob)} is the host's, or check the output "
        f"of `ssh-keyscan -p {target.port} {target.address}`, and add it there",
    )


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


def _sftp(transport: paramiko.Transport, target: Target) -> SftpSession:
    """Ask for the host's SFTP subsystem."""
    given = target.given
    with _explained(target):
        try:
            return _open_sftp(transport, given.connect_timeout_seconds, given.operation_timeout_seconds)
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
def _explained(target: Target) -> Iterator[None]:
    """What goes wrong with a connection, as one sentence that says what to do."""
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
        advice = algorithms if "acceptable" in str(error) else "; it is tried again"
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
