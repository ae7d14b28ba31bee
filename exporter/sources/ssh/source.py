"""Logs on one SSH host over SFTP: one connection and one channel for any number of logs (:mod:`.sftp_logs`).

If a host does not answer in time, the connection is closed and retried with backoff. After a refused login the waits
are minutes, because more attempts lock accounts. If a connection has merely ended (sshd was restarted, or a
firewall dropped it), it is made again at once and the request repeated, so the source does not count as down.
"""

from __future__ import annotations

import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import paramiko

from exporter.process.backoff import Backoff
from exporter.sources.source import (
    NO_KNOWN_STATS,
    FolderEntry,
    LogProblem,
    LogStat,
    ReadRequest,
    SourceUnavailable,
    UnexpectedError,
)
from exporter.sources.ssh.connection import SshConnection, open_sftp
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.login import LoginRefused
from exporter.sources.ssh.sftp_logs import SftpLogs
from exporter.sources.ssh.sftp_messages import SftpEnded, SftpError

_RECONNECT_PAUSES = 1.0, 60.0
"""First and longest pause after a lost connection, seconds."""
_LOGIN_PAUSES = 120.0, 900.0
"""The same after a refused login: 2, 4, 8 and then 15 minutes."""
_ENDED_LOGINS = 2
"""After so many connections that ended during the login, the login counts as refused."""

Answer = TypeVar("Answer")


class _SftpSource(ABC):
    """Base of the sources over SFTP. It repeats a request if the session has ended.

    Args:
        name: the source's name.
        operation_timeout_seconds: longest wait for an answer.
        clock: monotonic clock in seconds.
    """

    kind = "ssh"

    def __init__(self, name: str, operation_timeout_seconds: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.reconnects = 0
        self._operation_timeout_seconds = operation_timeout_seconds
        self._clock = clock
        self._logs: SftpLogs | None = None
        self._past_round_trips = 0

    @property
    def round_trips(self) -> int:
        """See :attr:`exporter.sources.source.LogSource.round_trips`."""
        logs = self._logs
        return self._past_round_trips + (logs.session.round_trips if logs is not None else 0)

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        """See :meth:`exporter.sources.source.LogSource.stat`."""
        found = self._ask(lambda logs: logs.stat([*paths, *known]))
        changed: dict[str, LogStat | LogProblem | None] = {
            path: found.get(path) for path, seen in known.items() if found.get(path) != seen
        }
        return changed | {path: found[path] for path in paths if path in found}

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        """See :meth:`exporter.sources.source.LogSource.read`."""
        return self._ask(lambda logs: logs.read(requests))

    def listing(self, folder: str) -> Mapping[str, LogStat]:
        """See :meth:`exporter.sources.source.LogSource.listing`."""
        return self._ask(lambda logs: logs.listing(folder))

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        """See :meth:`exporter.sources.source.LogSource.missing_folders`."""
        return self._ask(lambda logs: logs.missing_folders(folders))

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        """See :meth:`exporter.sources.source.LogSource.entries`."""
        self._ask(lambda logs: logs.entries(folder, names, visit, within))

    @abstractmethod
    def _connected(self) -> SftpLogs:
        """Return the logs over an open session, which is opened if there is none."""

    @property
    @abstractmethod
    def _was_closed(self) -> bool:
        """Whether :meth:`close` has ended the session."""

    @abstractmethod
    def _lost(self, kind: str, reason: str) -> SourceUnavailable:
        """Handle a lost session that cannot be opened again at once; return the error to raise."""

    @abstractmethod
    def _failed(self, error: Exception) -> SourceUnavailable:
        """Handle an unexpected exception; return the error to raise."""

    @abstractmethod
    def close(self) -> None:
        """Close the session."""

    def _ask(self, request: Callable[[SftpLogs], Answer], *, may_retry: bool = True) -> Answer:
        """Make a request. If the session has ended, open a new one and repeat the request once."""
        logs = self._connected()
        started_at = self._clock()
        try:
            return request(logs)
        except TimeoutError:
            kind, reason = "timeout", "no answer in time"
            # The library uses the wall clock. If that was set, the wait was shorter than the time-out.
            ended = self._clock() - started_at < self._operation_timeout_seconds
        except (SftpEnded, OSError, EOFError, paramiko.SSHException) as error:
            kind, reason, ended = "connection_lost", str(error) or "the host has ended the connection", True
        except SftpError as error:
            kind, reason, ended = "connection_lost", str(error), False
        except (LogProblem, SourceUnavailable):
            raise
        except Exception as error:
            # Answers may still be under way, so the next request needs a new session.
            self._end_session()
            raise self._failed(error) from error
        retry = ended and may_retry and not self._was_closed
        self._end_session()
        if not retry:
            raise self._lost(kind, reason)
        return self._ask(request, may_retry=False)

    def _end_session(self) -> None:
        self.close()
        self._past_round_trips = self.round_trips
        self._logs = None


class ClientLogSource(_SftpSource):
    """Logs over an SSH client that an embedding program has connected and keeps.

    Args:
        client: a connected client.
        operation_timeout_seconds: longest wait for an answer.
    """

    def __init__(self, client: paramiko.SSHClient, operation_timeout_seconds: float = 10.0) -> None:
        super().__init__("remote", operation_timeout_seconds, time.monotonic)
        self._client = client

    def close(self) -> None:
        """Close the SFTP session. The client stays connected."""
        logs = self._logs
        if logs is not None:
            logs.session.close()

    @property
    def _was_closed(self) -> bool:
        return False  # only one thread uses and closes it

    def _connected(self) -> SftpLogs:
        if self._logs is None:
            seconds = self._operation_timeout_seconds
            try:
                self._logs = SftpLogs(open_sftp(self._client, connect_timeout=seconds, operation_timeout=seconds))
            except (SftpError, OSError, EOFError, paramiko.SSHException) as error:
                raise SourceUnavailable("sftp", f"no SFTP session over the given client: {error}") from error
        return self._logs

    def _lost(self, kind: str, reason: str) -> SourceUnavailable:
        return SourceUnavailable(kind, f"the SFTP session over the given client is lost: {reason}")

    def _failed(self, error: Exception) -> SourceUnavailable:
        return UnexpectedError(error)


class SshLogSource(_SftpSource):
    """One SSH host as a :class:`~exporter.sources.source.LogSource`.

    Args:
        name: the source's name.
        host: how to reach the host.
        folders: folders that must hold the logs after links are resolved; ``None`` if links may lead anywhere.
        clock: monotonic clock in seconds.
        jitter: random number within 0..1, so that several exporters do not reconnect to a host at the same instant.
    """

    def __init__(
        self,
        name: str,
        host: SshHost,
        folders: Collection[str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name, host.operation_timeout_seconds, clock)
        self._host = host
        self._folders = folders
        self._reconnects = Backoff(*_RECONNECT_PAUSES, factors=(0.5, 1.0), jitter=jitter)
        self._logins = Backoff(*_LOGIN_PAUSES, factors=(1.0, 1.25), jitter=jitter)
        self._connection: SshConnection | None = None
        self._connected_before = False
        self._ended_logins = 0
        self._next_at = float("-inf")
        self._last_trouble: SourceUnavailable | None = None

    def close(self) -> None:
        """Close the connection. Any thread may call this to end a wait. The next request connects again."""
        connection = self._connection
        if connection is not None:
            connection.close()

    def _connected(self) -> SftpLogs:
        if self._logs is not None:
            return self._logs
        if self._last_trouble is not None and self._clock() < self._next_at:
            raise self._last_trouble.with_traceback(None)
        # Assigned before it is open, so that close() can end the connecting.
        self._connection = SshConnection(self._host)
        try:
            self._logs = SftpLogs(self._connection.open(), self._folders)
        except SourceUnavailable as trouble:
            self._connection.close()
            self._pause(trouble)
            raise
        except Exception as error:
            self._connection.close()
            raise self._failed(error) from error
        self.reconnects += self._connected_before
        self._connected_before = True
        self._reconnects.reset()
        self._logins.reset()
        self._ended_logins = 0
        self._last_trouble = None
        return self._logs

    @property
    def _was_closed(self) -> bool:
        return self._connection is not None and self._connection.closed

    def _lost(self, kind: str, reason: str) -> SourceUnavailable:
        trouble = SourceUnavailable(
            kind, f"lost the connection to {self._host.host}: {reason}; the exporter tries again"
        )
        self._pause(trouble)
        return trouble

    def _failed(self, error: Exception) -> SourceUnavailable:
        trouble = UnexpectedError(error)
        self._pause(trouble)
        return trouble

    def _pause(self, trouble: SourceUnavailable) -> None:
        """Start the backoff. Until it ends, every request raises the same error."""
        self._ended_logins = self._ended_logins + 1 if trouble.kind == "login_ended" else 0
        refused = isinstance(trouble, LoginRefused) or self._ended_logins >= _ENDED_LOGINS
        self._next_at = self._clock() + (self._logins if refused else self._reconnects).next_pause()
        self._last_trouble = trouble
