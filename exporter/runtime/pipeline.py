"""Following beams as one configuration says: which there are, what their logs say, and the mirror of it.

The rounds of work of each thread are here; what they call knows nothing of threads. After a reload a new
:class:`Pipeline` takes over from the one before, with the offsets of the logs that are still followed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from exporter.beams.store import BeamStore
from exporter.config import Settings, SourceSettings, SshSourceSettings
from exporter.logs.parser import SitePatterns
from exporter.polling.output_check import OutputRules
from exporter.polling.poller import SourcePoller
from exporter.privacy.identifiers import Identifiers
from exporter.process.worker import Worker
from exporter.runtime.database_access import DatabaseAccess
from exporter.runtime.discovery_loop import DirectoryDiscoveryLoop, TableDiscoveryLoop
from exporter.runtime.event_log import log_event
from exporter.runtime.mirror_loop import MirrorLoop
from exporter.sources import inotify
from exporter.sources.inotify import InotifyWatcher
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import LogSource

_log = structlog.get_logger(__name__)

_STOP_SECONDS = 2.0
_SHORTEST_PAUSE = 0.2
"""Of the interval: looks that take longer than it must not become a busy loop."""

_ANNOUNCED_POLL_SECONDS = 5.0
"""A log whose changes the kernel announces is looked at so often all the same: the plan's limit for an update."""

_LOOK_SECONDS = 0.2
"""So long the mirror waits for the logs to be looked at before it writes."""

_AFTER_ERROR_SECONDS = 1.0
"""Pause after an unexpected error, so that one that comes again at once costs little."""

_QUIET_SECONDS = 0.002
_QUIET_TIMES = 9
"""After an announced look, others are gathered for so long: at least the first, and so many times what the look has
taken, so that a log written as fast as can be takes a tenth of a core and not all of it."""


def make_source(source: SourceSettings, templates: Iterable[LogPathTemplate]) -> LogSource:
    """Where a source of the configuration is read.

    Args:
        source: its section.
        templates: its log paths.
    """
    folders = {template.folder for template in templates} if source.follow_links == "inside" else None
    if isinstance(source, SshSourceSettings):
        from exporter.sources.ssh import source as ssh

        return ssh.SshLogSource(source.name, source.ssh_host, folders)
    return LocalLogSource(source.name, folders)


def output_rules(settings: Settings, source: SourceSettings) -> OutputRules | None:
    """Which dose files must be there on a source of the configuration; ``None`` for none.

    Args:
        settings: the configuration.
        source: one of its sources.
    """
    if not source.output_path:
        return None
    return OutputRules(
        settings.output_templates(source), source.output_minimum_bytes, follow_links=source.follow_links == "anywhere"
    )


def site_patterns(settings: Settings) -> SitePatterns:
    """The patterns that the configuration adds to the built-in ones."""
    patterns, markers = settings.progress_tracking.patterns, settings.completion_markers
    return SitePatterns.of(
        patterns.total_batches, patterns.current_batch, markers.success_patterns, markers.failure_patterns
    )


class _Waits:
    """When the next look is due, and what the thread of a source waits on until then.

    Args:
        watcher: its hints end a wait; ``None`` where there are none.
        interval_seconds: from one round to the next.
    """

    def __init__(self, watcher: InotifyWatcher | None, interval_seconds: float) -> None:
        self.watcher = watcher
        self._interval_seconds = interval_seconds
        self._round_due_at = float("-inf")
        self._quiet_seconds = math.inf
        self._asked: deque[threading.Event] = deque()
        self._woken = threading.Event()

    def poll(self, poller: SourcePoller) -> float:
        """Look at what is due; returns seconds until the next look."""
        began = time.monotonic()
        asked = [self._asked.popleft() for _ in range(len(self._asked))]
        a_round = bool(asked) or began >= self._round_due_at or self.watcher is None
        more = poller.poll(hinted_only=not a_round)
        for looked in asked:
            looked.set()
        took = time.monotonic() - began
        interval = self._interval_seconds
        # A round is no answer to an announcement, and must not hold up those that follow.
        self._quiet_seconds = _QUIET_SECONDS if a_round else max(_QUIET_SECONDS, _QUIET_TIMES * took)
        if a_round and not more:
            # The interval is from round to round: what one takes (round trips to a host) is not added to it.
            self._round_due_at = began + max(interval, took + _SHORTEST_PAUSE * interval)
        return 0.0 if more else max(0.0, self._round_due_at - began - took)

    def poll_hinted(self, poller: SourcePoller) -> None:
        """Look at what has been announced, while the thread is busy with something else."""
        if self.watcher is not None and self.watcher.pending():
            poller.poll(hinted_only=True)

    def wait(self, seconds: float) -> None:
        """Wait until the next round, or until something is announced."""
        # A look that failed leaves what was announced where it was: no hint may call for the next one early.
        quiet, self._quiet_seconds = self._quiet_seconds, math.inf
        if self.watcher is not None:
            self.watcher.wait(seconds, quiet)
        else:
            self._woken.wait(seconds)
            self._woken.clear()

    def close(self) -> None:
        """Give the announcements back; the thread has ended."""
        if self.watcher is not None:
            self.watcher.close()

    def ask(self) -> threading.Event:
        """Have a round now, from any thread; what is returned is set when it is over."""
        looked = threading.Event()
        self._asked.append(looked)
        self.wake()
        return looked

    def wake(self) -> None:
        """End the wait, also one that has not begun; from any thread."""
        self._woken.set()
        if self.watcher is not None:
            self.watcher.wake()


class Pipeline:
    """The threads that follow beams.

    Args:
        settings: the configuration.
        store: told everything.
        identifiers: how ids are shown in log lines.
        clock: the present instant (:meth:`exporter.process.clock.Clock.now`).
        before: what followed until a reload, stopped.
    """

    def __init__(
        self,
        settings: Settings,
        store: BeamStore,
        identifiers: Identifiers,
        clock: Callable[[], float],
        before: Pipeline | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._pollers: dict[str, SourcePoller] = {}
        self._polled: set[str] = set()
        self._database: DatabaseAccess | None = None
        self._mirror: MirrorLoop | None = None
        self._workers: list[Worker] = []
        self._mirror_worker: Worker | None = None
        self._waits: list[_Waits] = []
        if settings.progress_tracking.enabled:
            self._build(identifiers, clock, before)
        if before is not None:
            before.close()
            for name in before._pollers.keys() - self._pollers.keys():
                store.remove_source(name)
            if self._database is None:
                store.update_database(None)

    def _build(self, identifiers: Identifiers, clock: Callable[[], float], before: Pipeline | None) -> None:
        settings, store = self._settings, self._store
        site = site_patterns(settings)
        names = settings.discovery.kind == "directory"
        for each in settings.sources:
            templates = settings.templates(each)
            store.add_source(each.name, each.kind)
            source = make_source(each, templates)
            interval = settings.progress_tracking.monitoring.poll_interval_seconds
            waits = _Waits(inotify.open_watcher() if source.kind == "local" else None, interval)
            self._waits.append(waits)
            poller = SourcePoller(
                source,
                templates,
                store,
                site=site,
                identifiers=identifiers,
                clock=clock,
                watcher=waits.watcher,
                polls_per_hinted_log=max(1, round(_ANNOUNCED_POLL_SECONDS / interval)),
                outputs=output_rules(settings, each),
            )
            if before is not None and each.name in before._pollers:
                poller.adopt(before._pollers[each.name])
            else:
                poller.resume(*store.checkpoints(each.name))
            self._pollers[each.name] = poller
            directory: DirectoryDiscoveryLoop | None = None
            if names:
                changed = poller.names_changed
                directory = DirectoryDiscoveryLoop(settings, source, templates, store, identifiers, clock, changed)
            self._add_worker(f"source {each.name}", partial(self._poll_source, poller, directory, waits), waits)
        table: TableDiscoveryLoop | None = None
        if settings.database is not None and not names:
            access = DatabaseAccess(
                settings, settings.database, store, identifiers, before._database if before is not None else None
            )
            self._database = access
            table = TableDiscoveryLoop(settings, access, store, identifiers, clock)
            if settings.mirror.enabled:
                earlier = before._mirror if before is not None else None
                self._mirror = MirrorLoop(settings, access, store, identifiers, clock, earlier, self._poll_now)
                self._mirror_worker = self._add_worker("mirror", self._mirror.run_once)
        self._add_worker("discovery", partial(self._discover, table, identifiers, clock))

    def _add_worker(self, name: str, step: Callable[[], float], waiter: _Waits | None = None) -> Worker:
        def looking() -> float:
            wait = step()
            self._polled.add(name)
            return wait

        self._store.declare_errors(name)
        worker = Worker(name, looking, self._store.count_error, waiter=waiter)
        self._workers.append(worker)
        return worker

    def _poll_source(self, poller: SourcePoller, directory: DirectoryDiscoveryLoop | None, waits: _Waits) -> float:
        try:
            if directory is not None:
                directory.run_once(partial(waits.poll_hinted, poller))
            return waits.poll(poller)
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is down; said and counted
            poller.failed(error)
            return _AFTER_ERROR_SECONDS

    def _discover(
        self, table: TableDiscoveryLoop | None, identifiers: Identifiers, clock: Callable[[], float]
    ) -> float:
        if table is not None:
            table.run_once()
        self._store.advance(clock())
        for event in self._store.pop_events():
            log_event(event, identifiers)
        return self._settings.discovery.interval_seconds

    def _poll_now(self) -> None:
        """Have every source look at its logs; one that takes long is not waited for."""
        deadline = time.monotonic() + _LOOK_SECONDS
        for looked in [waits.ask() for waits in self._waits]:
            looked.wait(max(0.0, deadline - time.monotonic()))

    def start(self) -> None:
        """Start every thread."""
        if self._mirror_worker is not None:
            self._store.add_listener(self._mirror_worker.wake)
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """End every thread and write what the mirror still holds."""
        if self._mirror_worker is not None:
            self._store.remove_listener(self._mirror_worker.wake)
        for worker in self._workers:
            worker.stop()
        # A source may be waiting for its host: its connection is ended under it.
        for poller in self._pollers.values():
            poller.close()
        if self._database is not None:
            self._database.interrupt()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in self._workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                _log.error("thread did not end in time", thread=worker.name, seconds=_STOP_SECONDS)
        if self._mirror is not None:
            self._mirror.run_once(now=True)

    def close(self) -> None:
        """Give back the kernel's announcements; :meth:`stop` comes first."""
        for waits in self._waits:
            waits.close()
        self._waits = []

    def trouble(self) -> str | None:
        """Why following cannot be said to work; ``None`` when it does."""
        return next((trouble for worker in self._workers if (trouble := worker.trouble) is not None), None)

    def unready(self) -> str | None:
        """What has not been looked at yet; ``None`` when all has been, once."""
        missing = sorted(worker.name for worker in self._workers if worker.name not in self._polled)
        return f"not looked yet: {', '.join(missing)}" if missing else None
