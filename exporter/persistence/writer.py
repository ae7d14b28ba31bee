"""Keeps the store on disk up to date, and restores the beams from it after a restart.

Neither polling nor a scrape ever waits for the disk: what has changed is encoded under the lock of the beams, a few at
a time, then written in a thread of its own. A store that cannot be written, or read, is reported once and counted; the
logs themselves know everything but how long batches took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from pathlib import Path

import structlog
from pydantic import ValidationError

from exporter.beams.saved import RestoredState, StoredState
from exporter.beams.store import BeamStore
from exporter.persistence.errors import (
    StateInUse,
    StateNotOurs,
    StateNotSaved,
    StateOutdated,
    StateReadable,
    StateUnusable,
)
from exporter.persistence.history import RunHistory
from exporter.persistence.lock import LockFile
from exporter.persistence.old_state import OldStateFile, find_old_state, is_readable, store_path
from exporter.persistence.store import StateStore, is_plain
from exporter.privacy.encryption import Encryption
from exporter.privacy.identifiers import SafeText
from exporter.process.clock import Clock
from exporter.process.worker import Worker

_log = structlog.get_logger(__name__)

_NAME = "state"
_COLLECT_SECONDS = 0.4
"""Changes are collected for so long before they are written together: one write waits for the disk once."""
_STOP_SECONDS = 2.0
_DAY_SECONDS = 86400.0


class StateWriter:
    """Writes changes of a :class:`~exporter.beams.store.BeamStore` to disk within half a second.

    Args:
        file: ``state.file`` of the configuration.
        interval_seconds: how often the time of the last poll is written where nothing else changes, and how long after
            a failure it is tried again.
        keep_history_days: how long a run that ended stays in the history.
        store: what is saved.
        clock: the exporter's.
        encryption: encrypts the store on disk; nothing is encrypted without.
    """

    def __init__(
        self,
        file: Path,
        interval_seconds: float,
        keep_history_days: float,
        store: BeamStore,
        clock: Clock,
        encryption: Encryption | None = None,
    ) -> None:
        self.path = store_path(file)
        self.encryption = encryption
        self._file = file
        self._disk = StateStore(self.path, encryption)
        self._lock = LockFile(self.path)
        self._interval_seconds = interval_seconds
        self._keep_history_seconds = keep_history_days * _DAY_SECONDS
        self._store = store
        self._clock = clock
        self._old: OldStateFile | None = None
        self._unsaved = threading.Event()
        self._collect_until: float | None = None
        self._poll_times_due_at = 0.0
        self._not_before = 0.0
        self._history_due_at = 0.0
        self._saved_sources: object = None
        self._trouble: str | None = None
        store.declare_errors(_NAME)
        self._worker = Worker(_NAME, self._step, store.count_error)

    @property
    def history(self) -> RunHistory:
        """The history of runs, for readers."""
        return RunHistory(self.path, self.encryption)

    @property
    def up(self) -> bool:
        """Whether the last write worked."""
        return self._trouble is None

    # Reading

    def resume(self, sources: Collection[str]) -> None:
        """Lock the store, and restore the beams from it. Call it before the first poll.

        Args:
            sources: those of the configuration.

        Raises:
            StateInUse: another exporter uses the file.
            StateNotOurs: another program's file is at the path.
        """
        if self._file != self.path:
            _log.info(
                "state.file names the JSON file of an earlier version: the state is kept in a database beside it; "
                "set state.file to that",
                state=str(self.path),
            )
        try:
            self._lock.acquire()
        except StateInUse as error:
            raise StateInUse(f"{self.path}: {error}") from None
        except OSError as error:
            self._failed(error.strerror or str(error))
        self._restore(sources)
        if self.encryption is not None:
            for path in dict.fromkeys((self._disk.aside, self._file.with_name(f"{self._file.name}.set-aside"))):
                self._warn_of_readable(path)
        self._store.on_unsaved(self._notify)

    def _restore(self, sources: Collection[str]) -> None:
        old = find_old_state(self._file, self.encryption)
        stored, imported = None, False
        try:
            if old is None or old.path != self.path:
                stored = self._disk.read()
            if stored is None and old is not None:
                stored, imported = self._import(old), True
            if stored is None:
                return
            state = decode(stored)
        except StateNotOurs as error:
            self._lock.release()
            raise StateNotOurs(f"{self.path}: {error}, no state file; set state.file to another path") from None
        except StateOutdated as error:
            self._drop_states(error)
            return
        except StateUnusable as error:
            self._set_aside(error)
            return
        if state.sources.clocks is not None:
            self._clock.resume(state.sources.clocks)
        self._store.resume(state, sources, runs_are_saved=not imported)
        self._store.show_saved_counters(state.counters)
        _log.info("going on after a restart", state=str(self.path), beams=len(state.beams))
        if imported:
            self._save()

    def _import(self, old: OldStateFile) -> StoredState | None:
        try:
            stored = old.read()
            decode(stored)
        except StateInUse as error:
            self._lock.release()
            raise StateInUse(f"{old.path}: {error}") from None
        except (StateUnusable, OSError) as error:
            self._report_unusable(old.path, str(error))
            self._retire(old, ".set-aside")
            return None
        self._old = old
        if old.path == self.path:
            self._finish_import()
        return stored

    def _finish_import(self) -> None:
        """Put the JSON file out of the way: it is imported once."""
        old, self._old = self._old, None
        if old is not None:
            self._retire(old, ".imported")

    def _retire(self, old: OldStateFile, suffix: str) -> None:
        about = {"file": str(old.path), "state": str(self.path)}
        try:
            kept = old.retire(suffix)
        except OSError as error:
            _log.warning("the state file of an earlier version cannot be renamed", error=error.strerror, **about)
            return
        old.release()
        outcome = "deleted, since ids in it could be read" if kept is None else f"renamed to {kept.name}"
        if suffix == ".imported":
            _log.info("state of an earlier version imported", its_file_was=SafeText(outcome), **about)

    def _warn_of_readable(self, path: Path) -> None:
        """What was set aside holds ids where it was written before they were redacted."""
        try:
            readable = is_plain(path) and is_readable(path)
        except OSError:
            readable = True
        if readable:
            _log.warning("a state file that was set aside may hold ids that can be read; delete it", state=str(path))

    def _drop_states(self, reason: StateOutdated) -> None:
        try:
            self._disk.drop_states()
        except StateUnusable as error:
            self._set_aside(error)
        else:
            self._report_unusable(self.path, str(reason), kept="the history of runs")

    def _set_aside(self, reason: StateUnusable) -> None:
        about = {}
        try:
            if isinstance(reason, StateReadable):
                # What ids it holds must not stay where they can be read.
                self._disk.remove()
            else:
                about["set_aside_as"] = self._disk.set_aside().name
        except OSError as error:
            about["not_set_aside"] = error.strerror or str(error)
        self._report_unusable(self.path, str(reason), **about)

    def _report_unusable(self, path: Path, reason: str, **about: str) -> None:
        self._store.count_error(_NAME)
        _log.warning(
            "state file cannot be used: all logs are read again from their beginning",
            state=str(path),
            reason=SafeText(reason),
            **about,
        )

    # Writing

    def start(self) -> None:
        """Begin to write."""
        self._worker.start()

    def stop(self) -> None:
        """Write once more, and end; within four seconds, whatever the disk does."""
        self._store.on_unsaved(None)
        self._worker.stop()
        last = threading.Thread(target=self._save, name=f"last {_NAME}", daemon=True)
        if self._worker.join(_STOP_SECONDS):
            last.start()
            last.join(_STOP_SECONDS)
            if not last.is_alive():
                self.close()
                return
        _log.error("state was not written in time: the disk does not answer", state=str(self.path))

    def close(self) -> None:
        """Close the store, and release its lock."""
        self._disk.close()
        self._lock.release()

    def _notify(self) -> None:
        self._unsaved.set()
        self._worker.wake()

    def _step(self) -> float:
        now = time.monotonic()
        if now < self._not_before:
            return self._not_before - now
        if self._unsaved.is_set():
            if self._collect_until is None:
                self._collect_until = now + min(_COLLECT_SECONDS, self._interval_seconds)
            if now < self._collect_until:
                return self._collect_until - now
            self._collect_until = None
            self._save()
        elif now >= self._poll_times_due_at and self._sources() != self._saved_sources:
            self._save()
        if self._poll_times_due_at <= now:
            self._poll_times_due_at = now + self._interval_seconds
        return self._poll_times_due_at - now

    def _sources(self) -> object:
        """What is written although it is not a change of any beam."""
        return self._store.source_states(), self._clock.timeline

    def _save(self) -> None:
        self._unsaved.clear()
        try:
            self._lock.acquire()
            if self._disk.needs_everything:
                self._store.reject_saved()
            clocks = self._clock.reading()
            sources = self._sources()
            changes = self._store.collect_changes(clocks)
            forget = clocks.at - self._keep_history_seconds if time.monotonic() >= self._history_due_at else None
            self._disk.write(changes, forget_runs_before=forget)
        except StateNotOurs as error:
            self._failed(str(error))
        except StateUnusable as error:
            self._set_aside(error)
            self._store.reject_saved()
        except (OSError, StateInUse, StateNotSaved) as error:
            self._failed(getattr(error, "strerror", None) or str(error))
        else:
            if forget is not None:
                self._history_due_at = time.monotonic() + _DAY_SECONDS
            self._saved_sources = sources
            self._finish_import()
            self._store.confirm_saved(changes)
            if self._trouble is not None:
                self._trouble = None
                _log.info("state is written again", state=str(self.path))

    def _failed(self, reason: str) -> None:
        """Report it once until it works again; count it each time."""
        self._store.count_error(_NAME)
        self._store.reject_saved()
        self._not_before = time.monotonic() + self._interval_seconds
        if reason != self._trouble:
            self._trouble = reason
            _log.warning(
                "state cannot be written: after a restart logs are read again from their beginning",
                state=str(self.path),
                error=SafeText(reason),
            )


def decode(stored: StoredState) -> RestoredState:
    """Decode the stored state.

    Raises:
        StateOutdated: it is not valid. The message names the field, not its value, which may be a patient's id.
    """
    try:
        return RestoredState.decode(stored)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        raise StateOutdated(f"holds what it should not: {first['type']} at {place}") from None
