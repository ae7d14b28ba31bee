"""Remembers on disk which messages have been sent, so that a restart sends none twice.

The keys of sent messages are kept in memory, and :meth:`SentOnDisk.save` writes new ones. While the store on disk is
missing or cannot be written, this process still sends each message once; a later :meth:`~SentOnDisk.save` writes all.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import structlog

from exporter.privacy.encryption import Encryption

_log = structlog.get_logger(__name__)

_INSERT = "INSERT OR REPLACE INTO notifications VALUES (?, ?, ?)"
_DELETE = "DELETE FROM notifications WHERE destination = ? AND key = ?"
_FORGET = "DELETE FROM notifications WHERE sent_at < ? AND key <> ''"
_BUSY_SECONDS = 2.0
_DAY_SECONDS = 86400.0


class SentOnDisk:
    """Messages sent, by destination and key; the table ``notifications`` of the state store. Used by one thread.

    Args:
        path: the state store.
        keep_days: what was sent earlier is forgotten.
        encryption: hashes the keys of messages; without it they are stored as they are.
    """

    def __init__(self, path: Path, keep_days: float, encryption: Encryption | None = None) -> None:
        self._path = path
        self._keep_seconds = keep_days * _DAY_SECONDS
        self._encryption = encryption
        self._sent: dict[str, set[str]] | None = None
        self._unwritten: list[tuple[str, str, bool]] = []
        self._failing = False

    def is_new(self, destination: str) -> bool:
        """Return whether :meth:`remember` was never called for a destination."""
        return destination not in self._known()

    def was_sent(self, destination: str, key: str) -> bool:
        """Return whether a destination has got the message of this key."""
        return self._stored(key) in self._known().get(destination, ())

    def remember(self, destination: str, keys: Iterable[str]) -> None:
        """Remember that a destination has got these messages, or need not get them."""
        known = self._known()
        new = [self._stored(key) for key in keys]
        if destination not in known:
            new.append("")  # so that the destination is known even if nothing was sent there
        known.setdefault(destination, set()).update(new)
        self._unwritten += [(destination, each, True) for each in new]
        self.save()

    def forget(self, destination: str, key: str) -> None:
        """Forget a message: when the same happens again, it is sent again."""
        stored = self._stored(key)
        if stored in self._known().get(destination, ()):
            self._known()[destination].discard(stored)
            self._unwritten.append((destination, stored, False))
            self.save()

    def _stored(self, key: str) -> str:
        return key if self._encryption is None else self._encryption.lookup("notification", key)

    def _known(self) -> dict[str, set[str]]:
        if self._sent is None:
            self._sent = {}
            if self._path.exists():
                try:
                    with closing(self._connect()) as database:
                        rows = database.execute("SELECT destination, key FROM notifications").fetchall()
                except sqlite3.Error as error:
                    self._report(error)
                else:
                    for destination, key in rows:
                        self._sent.setdefault(str(destination), set()).add(str(key))
        return self._sent

    def save(self) -> None:
        """Write what has not been written yet. The state writer makes the store; until then it waits."""
        if not self._unwritten or not self._path.exists():
            return
        now = time.time()
        try:
            with closing(self._connect()) as database, database:
                for destination, key, sent in self._unwritten:
                    database.execute(
                        _INSERT if sent else _DELETE, (destination, key, now) if sent else (destination, key)
                    )
                database.execute(_FORGET, (now - self._keep_seconds,))
        except sqlite3.Error as error:
            self._report(error)
        else:
            self._unwritten.clear()
            self._failing = False

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)

    def _report(self, error: sqlite3.Error) -> None:
        """Report it once until it works again."""
        if not self._failing:
            self._failing = True
            _log.warning(
                "sent messages cannot be remembered: after a restart some may be sent again",
                error=type(error).__name__,
            )
