"""What polling needs of the place that holds the state of beams; ``exporter.beams.store.BeamStore`` provides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from exporter.beams.output import OutputSearchResult
from exporter.beams.snapshot import BeamKey, OutputSearch, SourceView, WatchedBeam
from exporter.logs.events import Event
from exporter.process.clock import Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat


class PollSink(Protocol):
    """Knows which beams to poll for, and receives what their logs say. Its members may be used from any thread.

    ``BeamStore`` documents each member.
    """

    @property
    def watch_version(self) -> int: ...

    def watched_beams(self, source: str) -> list[WatchedBeam]: ...

    def claim(
        self,
        key: BeamKey,
        source: str,
        path: str,
        stat: LogStat,
        at: float,
        *,
        path_moved: bool = False,
        written: bool = False,
    ) -> bool: ...

    def apply(
        self,
        key: BeamKey,
        path: str,
        events: list[Event],
        at: float,
        *,
        more: bool,
        read_at: float | None = None,
        recent: bytes = b"",
        checkpoint: Checkpoint | None = None,
        polled_at: float | None = None,
    ) -> bool: ...

    def update_source(self, view: SourceView, at: float) -> None: ...

    def output_searches_due(self, source: str, at: float, limit: int) -> Sequence[OutputSearch]: ...

    def update_output(self, search: OutputSearch, source: str, result: OutputSearchResult, at: float) -> None: ...

    def count_refused(self, reasons: Mapping[str, int]) -> None: ...

    def count_error(self, where: str) -> None: ...

    @property
    def timeline(self) -> Timeline: ...

    def clock_offset_seconds(self, source: str) -> float | None: ...

    def set_clock_offset(self, source: str, seconds: float | None, *, clock_steps: int) -> None: ...
