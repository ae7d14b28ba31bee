"""Following beams as one configuration says: which there are, what their logs say, and the mirror of it.

The rounds of work of each thread are here; what they call knows nothing of threads. After a reload a new
:class:`Following` takes over from the one before, with the offsets of the logs that are still followed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import structlog

from exporter.beams.board import Board
from exporter.config import Settings, Source, SshSource
from exporter.identifiers import Identifiers
from exporter.logs import ssh
from exporter.logs.local import LocalSource
from exporter.logs.parser import SitePatterns
from exporter.logs.source import LogSource
from exporter.loops import Loop
from exporter.monitor import SourceMonitor
from exporter.notices import say
from exporter.rounds import NameRounds, TableRounds

_log = structlog.get_logger(__name__)

_STOP_SECONDS = 2.0
_SHORTEST_PAUSE = 0.2
"""Of the interval: looks that take longer than it must not become a busy loop."""


def make_source(source: Source) -> LogSource:
    """Where a source of the configuration is read."""
    if isinstance(source, SshSource):
        return ssh.SshSource(source.name, source.ssh_host)
    return LocalSource(source.name)


def site_patterns(settings: Settings) -> SitePatterns:
    """The patterns that the configuration adds to the built-in ones."""
    patterns, markers = settings.progress_tracking.patterns, settings.completion_markers
    return SitePatterns.of(
        patterns.total_batches, patterns.current_batch, markers.success_patterns, markers.failure_patterns
    )


class Following:
    """The threads that follow beams.

    Args:
        settings: the configuration.
        board: told everything.
        identifiers: how ids are shown in log lines.
        clock: UTC epoch seconds.
        before: what followed until a reload, stopped.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        identifiers: Identifiers,
        clock: Callable[[], float],
        before: Following | None = None,
    ) -> None:
        self._settings = settings
        self._board = board
        self._monitors: dict[str, SourceMonitor] = {}
        self._looked: set[str] = set()
        self._table: TableRounds | None = None
        self._loops: list[Loop] = []
        self._mirror: Loop | None = None
        if settings.progress_tracking.enabled:
            self._build(identifiers, clock, before)
        if before is not None:
            before.close()
            for name in before._monitors.keys() - self._monitors.keys():
                board.remove_source(name)

    def _build(self, identifiers: Identifiers, clock: Callable[[], float], before: Following | None) -> None:
        settings, board = self._settings, self._board
        site = site_patterns(settings)
        names = settings.discovery.kind == "directory"
        for each in settings.sources:
            source = make_source(each)
            templates = settings.templates(each)
            monitor = SourceMonitor(source, templates, board, site=site, identifiers=identifiers, clock=clock)
            if before is not None and each.name in before._monitors:
                monitor.adopt(before._monitors[each.name])
            else:
                monitor.resume(*board.bookmarks(each.name))
            self._monitors[each.name] = monitor
            finding = NameRounds(settings, source, templates, board, clock) if names else None
            self._add_loop(f"source {each.name}", partial(self._look, monitor, finding))
        rounds: TableRounds | None = None
        if settings.database is not None and not names:
            earlier = before._table if before is not None else None
            self._table = rounds = TableRounds(settings, settings.database, board, identifiers, clock, earlier)
            if settings.mirror.enabled:
                self._mirror = self._add_loop("mirror", rounds.mirror)
        self._add_loop("discovery", partial(self._discover, rounds, identifiers, clock))

    def _add_loop(self, name: str, step: Callable[[], float]) -> Loop:
        def looking() -> float:
            wait = step()
            self._looked.add(name)
            return wait

        self._board.expect_errors(name)
        loop = Loop(name, looking, self._board.count_error)
        self._loops.append(loop)
        return loop

    def _look(self, monitor: SourceMonitor, finding: NameRounds | None) -> float:
        if finding is not None:
            finding.discover()
        began = time.monotonic()
        if monitor.look():
            return 0.0
        # The interval is from look to look: what a look takes (round trips to a host) is not added to it.
        interval = self._settings.progress_tracking.monitoring.poll_interval_seconds
        return max(_SHORTEST_PAUSE * interval, interval - (time.monotonic() - began))

    def _discover(self, rounds: TableRounds | None, identifiers: Identifiers, clock: Callable[[], float]) -> float:
        if rounds is not None:
            rounds.discover()
        self._board.settle(clock())
        for notice in self._board.notices():
            say(notice, identifiers)
        return self._settings.discovery.interval_seconds

    def start(self) -> None:
        """Start every thread."""
        if self._mirror is not None:
            self._board.listen(self._mirror.wake)
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """End every thread and write what the mirror still holds."""
        if self._mirror is not None:
            self._board.unlisten(self._mirror.wake)
        for loop in self._loops:
            loop.stop()
        # A source may be waiting for its host: its connection is ended under it.
        for monitor in self._monitors.values():
            monitor.close()
        deadline = time.monotonic() + _STOP_SECONDS
        for loop in self._loops:
            if not loop.join(max(0.0, deadline - time.monotonic())):
                _log.error("thread did not end in time", thread=loop.name, seconds=_STOP_SECONDS)
        if self._table is not None and self._settings.mirror.enabled:
            self._table.mirror(now=True)

    def close(self) -> None:
        """Give back the connections to the database; :meth:`stop` comes first."""
        if self._table is not None:
            self._table.close()

    def trouble(self) -> str | None:
        """Why following cannot be said to work; ``None`` when it does."""
        return next((trouble for loop in self._loops if (trouble := loop.trouble) is not None), None)

    def unready(self) -> str | None:
        """What has not been looked at yet; ``None`` when all has been, once."""
        missing = sorted(loop.name for loop in self._loops if loop.name not in self._looked)
        return f"not looked yet: {', '.join(missing)}" if missing else None
