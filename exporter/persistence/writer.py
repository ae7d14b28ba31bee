"""Going on after a restart: the store in a file, and the next process's store out of it.

Neither following nor a scrape ever waits for the file: the store is copied under its lock, then written in a thread of
its own. A file that cannot be written, or read, is said once and counted; the logs themselves know everything but how
long batches took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from exporter.beams.beam import Beam
from exporter.beams.saved import SavedStore, decode_beam
from exporter.beams.snapshot import BeamKey
from exporter.beams.store import BeamStore
from exporter.persistence.store import StateFile, StateInUse, StateNotOurs, StateReadable, StateUnusable, is_readable
from exporter.privacy.encryption import Seal
from exporter.privacy.identifiers import Identifiers, SafeText
from exporter.process.clock import Clock
from exporter.process.worker import Worker

_log = structlog.get_logger(__name__)

_NAME = "state"
_LONGEST_WAIT_SECONDS = 0.5
"""A run that ended is counted for readers when the file holds it, so it is not kept waiting for the interval."""
_STOP_SECONDS = 2.0

_store = TypeAdapter(SavedStore)


def encoded(state: SavedStore) -> Iterator[bytes]:
    """The lines of a state: the store's own, then one for each beam.

    What no text can name (a file name that is no UTF-8) is left out, and met for the first time by the next process.
    """
    retired = [(key, each) for key, each in state.retired if _is_text(key)]
    ended = [each for each in state.ended if _is_text(each.key)]
    yield _store.dump_json(replace(state, retired=retired, ended=ended))
    yield from state.beams


def _is_text(key: BeamKey) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in f"{key.case_id}{key.beam_id}")


def decoded(lines: list[bytes]) -> tuple[SavedStore, dict[BeamKey, Beam]]:
    """The state that was encoded so, and its beams.

    Raises:
        StateUnusable: it is none; the message names the place, not what stands there, which may be a patient's.
    """
    if not lines:
        raise StateUnusable("holds nothing")
    try:
        state = _store.validate_json(lines[0], strict=True)
        return state, {beam.row.key: beam for beam in map(decode_beam, lines[1:])}
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        raise StateUnusable(f"holds what it should not: {first['type']} at {place}") from None


class Continuity:
    """The store's state in a file, from before one process to after the next.

    Args:
        path: the file.
        interval_seconds: how often it is written.
        store: what is kept, and told where to go on.
        identifiers: how the path is shown in log lines.
        clock: the exporter's.
        seal: seals the file, so that no id can be read in it; nothing is sealed without.
    """

    def __init__(
        self,
        path: Path,
        interval_seconds: float,
        store: BeamStore,
        identifiers: Identifiers,
        clock: Clock,
        seal: Seal | None = None,
    ) -> None:
        self._file = StateFile(path, seal)
        self._sealed = seal is not None
        self._interval_seconds = interval_seconds
        self._store = store
        self._shown_path = identifiers.path(str(path))
        self._clock = clock
        self._due_at = float("-inf")
        self._trouble: str | None = None
        store.declare_errors(_NAME)
        self._loop = Worker(_NAME, self._round, store.count_error)

    def resume(self, sources: Collection[str]) -> None:
        """Take the lock, and let the store go on where it stopped; before anything is followed.

        Args:
            sources: those of the configuration.

        Raises:
            StateInUse: another exporter uses the file.
            StateNotOurs: the path is that of something else.
        """
        try:
            self._file.lock()
        except StateInUse as error:
            raise StateInUse(f"{self._shown_path}: {error}") from None
        except OSError as error:
            self._failed(error)
        self._go_on(sources)
        if self._sealed:
            self._warn_of_what_can_be_read()

    def _go_on(self, sources: Collection[str]) -> None:
        try:
            lines = self._file.read()
            if lines is None:
                return
            state, beams = decoded(lines)
        except StateNotOurs as error:
            self._file.close()
            raise StateNotOurs(f"{self._shown_path}: {error}, no state file; set state.file to another path") from None
        except StateUnusable as error:
            self._set_aside(error)
            return
        self._store.resume(state, beams, sources)
        self._store.confirm_saved(state)
        if state.clocks is not None:
            self._clock.resume(state.clocks)
        _log.info("going on after a restart", state=self._shown_path, beams=len(beams))

    def _warn_of_what_can_be_read(self) -> None:
        """A state that was set aside holds ids where it was written before they were redacted."""
        aside = self._file.aside
        try:
            readable = is_readable(aside)
        except OSError:
            readable = True
        if readable:
            _log.warning("a state file that was set aside may hold ids that can be read; delete it", state=str(aside))

    def _set_aside(self, reason: StateUnusable) -> None:
        about = {"state": self._shown_path, "reason": str(reason)}
        self._store.count_error(_NAME)
        try:
            if isinstance(reason, StateReadable):
                # What ids it holds must not stay where they can be read.
                self._file.remove()
            else:
                about["set_aside_as"] = self._file.set_aside().name
        except OSError as error:
            about["not_set_aside"] = error.strerror or str(error)
        _log.warning("state file cannot be used: all logs are read again from their beginning", **about)

    def start(self) -> None:
        """Begin to write."""
        self._loop.start()

    def stop(self) -> None:
        """Write once more, and end; within four seconds, whatever the disk does."""
        self._loop.stop()
        last = threading.Thread(target=self._save, name=f"last {_NAME}", daemon=True)
        if self._loop.join(_STOP_SECONDS):
            last.start()
            last.join(_STOP_SECONDS)
            if not last.is_alive():
                self._file.close()
                return
        _log.error("state was not written in time: the disk does not answer", state=self._shown_path)

    def close(self) -> None:
        """Let others have the file; for one that was never started."""
        self._file.close()

    def _round(self) -> float:
        at = time.monotonic()
        if at >= self._due_at or self._store.has_unsaved_runs():
            self._due_at = at + self._interval_seconds
            self._save()
        return min(_LONGEST_WAIT_SECONDS, self._interval_seconds)

    def _save(self) -> None:
        try:
            self._file.lock()
            clocks = self._clock.reading()
            state = replace(self._store.to_state(), clocks=clocks)
            self._file.write(encoded(state), clocks.at)
        except (OSError, StateInUse) as error:
            self._store.confirm_saved(None)
            self._failed(error)
            return
        self._store.confirm_saved(state)
        if self._trouble is not None:
            self._trouble = None
            _log.info("state is written again", state=self._shown_path)

    def _failed(self, error: OSError | StateInUse) -> None:
        """Said once until it works again, counted each time."""
        self._store.count_error(_NAME)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if reason != self._trouble:
            self._trouble = reason
            _log.warning(
                "state cannot be written: after a restart logs are read again from their beginning",
                state=self._shown_path,
                error=SafeText(reason),
            )
