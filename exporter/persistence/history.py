"""Reads the history of runs: every run that ended while an exporter watched, newest first.

It opens the store beside the exporter that writes it, for one query, and never changes it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from exporter.beams.snapshot import EndedRun
from exporter.persistence.codec import Codec
from exporter.persistence.errors import StateUnusable
from exporter.privacy.encryption import Encryption

_BUSY_SECONDS = 2.0
_AGO = re.compile(r"(\d{1,9})([mhdw])")
_UNIT_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class HistoryUnavailable(Exception):
    """The history cannot be read. The message says why, and quotes nothing of its content."""


class RunHistory:
    """The history in one store. Thread-safe: each query has a connection of its own.

    Args:
        path: the store.
        encryption: decrypts it; ``None`` where ids are plain.

    Attributes:
        path: the store.
        encrypted: whether ids in it are encrypted.
    """

    def __init__(self, path: Path, encryption: Encryption | None = None) -> None:
        self.path = path
        self.encrypted = encryption is not None
        self._codec = Codec(encryption)

    def runs(
        self,
        *,
        case_id: str | None = None,
        since: float | None = None,
        limit: int | None = None,
        wanted: Callable[[EndedRun], bool] = lambda _: True,
    ) -> list[EndedRun]:
        """Return runs that ended, newest first.

        Args:
            case_id: only runs of this case.
            since: only runs that ended then or later, UTC epoch seconds.
            limit: at most so many; ``None`` for all.
            wanted: only runs for which this is true.

        Raises:
            HistoryUnavailable: there is no store yet, or it cannot be read.
        """
        found: list[EndedRun] = []
        try:
            with contextlib.closing(self._connect()) as database:
                for run in self._select(database, case_id, since):
                    if limit is not None and len(found) >= limit:
                        break
                    if wanted(run):
                        found.append(run)
        except StateUnusable as error:
            raise HistoryUnavailable(str(error)) from None
        except sqlite3.OperationalError as error:
            raise HistoryUnavailable("does not exist yet" if not self.path.exists() else str(error)) from None
        except (sqlite3.Error, UnicodeDecodeError):
            raise HistoryUnavailable("is damaged, or no store of this exporter") from None
        return found

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        database.text_factory = bytes
        return database

    def _select(self, database: sqlite3.Connection, case_id: str | None, since: float | None) -> Iterator[EndedRun]:
        conditions, values = ["1"], list[object]()
        if case_id is not None:
            conditions.append("case_id = ?")
            values.append(self._codec.case_id(case_id))
        if since is not None:
            conditions.append("ended_at >= ?")
            values.append(since)
        query = "SELECT case_id, beam_id, run, checksum FROM runs WHERE {} ORDER BY ended_at DESC, id DESC"
        return map(self._codec.decode_run, database.execute(query.format(" AND ".join(conditions)), values))


def parse_since(text: str, now: float) -> float:
    """Return the time that a text names, in UTC epoch seconds.

    Args:
        text: an age (``90m``, ``24h``, ``7d``, ``2w``), a date or a date with a time (ISO 8601; local time without an
            offset), or epoch seconds.
        now: UTC epoch seconds.

    Raises:
        ValueError: it names none; the message says what to write.
    """
    text = text.strip()
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNIT_SECONDS[ago[2]]
    with contextlib.suppress(ValueError, OverflowError):
        if re.fullmatch(r"\d{9,11}(\.\d{1,6})?", text):
            return float(text)
        return dt.datetime.fromisoformat(re.sub(r"[zZ]\Z", "+00:00", text)).timestamp()
    raise ValueError("write an age (24h, 7d), a date (2026-11-30), a date with a time, or epoch seconds")
