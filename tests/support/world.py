"""A store, a local source and rows under a clock that stands still until told: what happens to beams, step by step."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exporter.beams import restart
from exporter.beams.rules import StallRules, StatusRules, StoreRules
from exporter.beams.saved import RestoredState, StoreChanges, StoredState
from exporter.beams.snapshot import BeamKey, BeamRow, BeamView, EndedRun, StoreSnapshot
from exporter.beams.store import BeamStore
from exporter.logs.parser import SitePatterns
from exporter.polling.output_check import OutputRules
from exporter.polling.poller import SourcePoller
from exporter.process.clock import Clock
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import (
    NO_KNOWN_STATS,
    FolderEntry,
    LogProblem,
    LogSource,
    LogStat,
    ReadRequest,
    SourceUnavailable,
)
from tests.support.manual_clock import ManualClock
from tests.support.replay import LOGS

BEAM = BeamKey("70010001", "70010001_beam_1")


class FragileSource(LocalLogSource):
    """A local source that can be taken away."""

    down = False

    def _check(self) -> None:
        if self.down:
            raise SourceUnavailable("connection_lost", "gone")

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        self._check()
        return super().stat(paths, known)

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        self._check()
        return super().read(requests)

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        self._check()
        super().entries(folder, names, visit, within)


class StoredModel:
    """What a store on disk holds, in memory: beams and forgotten beams in their order, parts, and runs that ended."""

    def __init__(self) -> None:
        self._beams: dict[BeamKey, bytes] = {}
        self._forgotten: dict[BeamKey, bytes] = {}
        self._parts: dict[str, bytes] = {}
        self._ended: list[EndedRun] = []

    @classmethod
    def of(cls, stored: StoredState) -> StoredModel:
        """The model that holds this."""
        model, state = cls(), RestoredState.decode(stored)
        model._beams = dict(zip(state.beams, stored.beams, strict=True))
        model._forgotten = dict(zip(state.forgotten, stored.forgotten, strict=True))
        model._parts, model._ended = dict(stored.parts), list(stored.ended)
        return model

    def write(self, changes: StoreChanges) -> None:
        """Apply changes as the store does."""
        for kept, changed in ((self._beams, changes.beams), (self._forgotten, changes.forgotten)):
            for key, state in changed.items():
                if state is None or kept is self._forgotten:
                    kept.pop(key, None)
                if state is not None:
                    kept[key] = state
        self._parts = changes.parts
        self._ended += changes.ended

    def stored(self) -> StoredState:
        """What is read from it."""
        beams, forgotten = list(self._beams.values()), list(self._forgotten.values())
        return StoredState(dict(self._parts), beams, forgotten, self._ended[-200:])

    def comparable(self) -> object:
        """What two models have in common that hold the same; order and what time alone changes do not count."""
        beams = {key: json.loads(state) for key, state in self._beams.items()}
        for beam in beams.values():
            del beam["row"]["read_at"]
        return beams, self._forgotten


class World:
    """One exporter without threads. ``at`` is the wall clock; :meth:`look` is one round of everything.

    Args:
        folder: for logs.
        rules: of the store.
        templates: log paths below ``folder``.
        source: where logs are read; local by default.
        outputs: which dose files must be there; the rules name the source, too.

    Attributes:
        file_clock_seconds: how much later than ``at`` the file server's clock is: it dates the logs.
    """

    def __init__(
        self,
        folder: Path,
        rules: StoreRules | None = None,
        *,
        templates: tuple[str, ...] = ("{beam_id}.log",),
        source: LogSource | None = None,
        outputs: OutputRules | None = None,
    ) -> None:
        self.folder = folder
        self.at = 1_800_000_000.0
        self.clock: ManualClock | Clock = ManualClock(lambda: self.at)
        self.file_clock_seconds = 0.0
        self.rows: dict[BeamKey, BeamRow] = {}
        self.source = source or LocalLogSource("local")
        self._rules = rules or StoreRules()
        self._templates = templates
        self._outputs = outputs
        self._begin()

    def _begin(self) -> None:
        self.store = BeamStore(self._rules, self.clock.now(), lambda: self.clock.timeline)
        self._disk = StoredModel()
        self.poller = SourcePoller(
            self.source,
            [LogPathTemplate(f"{self.folder}/{template}") for template in self._templates],
            self.store,
            site=SitePatterns(),
            clock=self.now,
            outputs=self._outputs,
        )

    def saved(self) -> StoredState:
        """What the store on disk would hold now. Whatever has changed since it was written last must be marked."""
        self._disk.write(self.store.collect_changes())
        self.store._data.unsaved.ended.clear()
        restart.mark_all(self.store._data)
        whole = StoredModel()
        whole.write(self.store.collect_changes())
        assert self._disk.comparable() == whole.comparable(), "changed, and not marked as unsaved"
        return self._disk.stored()

    def restart(self, stored: StoredState | None = None) -> None:
        """The process is killed now, and another goes on with this state; with that of now where none is given."""
        stored = self.saved() if stored is None else stored
        self._begin()
        self._disk = StoredModel.of(stored)
        self.store.resume(RestoredState.decode(stored), {self.source.name})
        self.poller.resume(*self.store.checkpoints(self.source.name))

    def now(self) -> float:
        """The present instant."""
        return self.clock.now()

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        assert isinstance(self.clock, ManualClock)
        self.at += seconds
        self.clock.was_set(seconds)

    def log(self, key: BeamKey = BEAM) -> Path:
        """Where a beam's log is by the first template."""
        return self.folder / f"{key.beam_id}.log"

    def row(self, status: str | None = "simulation_running", progress: float | None = 0.0, key: BeamKey = BEAM) -> None:
        """The row is written now."""
        self.rows[key] = BeamRow(key, self.at, beam_path="/data", status=status, progress=progress, updated_at=self.at)

    def drop_row(self, key: BeamKey = BEAM) -> None:
        """The row is deleted."""
        del self.rows[key]

    def write(self, data: bytes, key: BeamKey = BEAM, *, anew: bool = False) -> None:
        """Bytes are appended to a log now, or written as a new one."""
        with self.log(key).open("wb" if anew else "ab") as file:
            file.write(data)
        os.utime(self.log(key), times=(self.at + self.file_clock_seconds,) * 2)

    def look(self, seconds: float = 0.5) -> None:
        """Time passes, then discovery, the source and time itself have a round."""
        self.at += seconds
        known, now = self.store.keys(), self.clock.now()
        rows = [replace(row, read_at=now) for row in self.rows.values()]
        self.store.update_rows(rows, known - self.rows.keys(), now)
        while self.poller.poll():
            pass
        self.store.advance(self.clock.now())

    def snapshot(self) -> StoreSnapshot:
        return self.store.snapshot(self.clock.now())

    def view(self, key: BeamKey = BEAM) -> BeamView:
        """The beam now."""
        [view] = [view for view in self.snapshot().beams if view.key == key]
        return view

    @property
    def state(self) -> str:
        """The one beam's state now; a text, which compares with every state."""
        return self.view().state.value

    @property
    def runs(self) -> dict[tuple[str, str], int]:
        """Runs counted, by outcome and reason."""
        return {(outcome, reason): count for (_, outcome, reason), count in self.snapshot().runs.items() if count}


def captured(name: str) -> bytes:
    """A captured log."""
    return (LOGS / f"{name}.log").read_bytes()


def upto(name: str, mark: bytes) -> bytes:
    """A captured log up to the end of the first line that holds ``mark``."""
    data = captured(name)
    return data[: data.index(b"\n", data.index(mark)) + 1]


def after(name: str, mark: bytes) -> bytes:
    """The rest of it."""
    return captured(name)[len(upto(name, mark)) :]


def quick() -> StoreRules:
    """Rules with short times."""
    return StoreRules(
        StallRules(factor=3, minimum_seconds=10, first_batch_seconds=60, buffered_seconds=500, timeout_seconds=300),
        StatusRules(),
        retention_seconds=100,
        failed_retention_seconds=1000,
    )
