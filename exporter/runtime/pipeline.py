"""The threads that follow beams for one configuration: one per source, discovery and mirror.

Only this module knows threads; the code that they call does not. After a reload a new :class:`Pipeline` replaces the
previous one and keeps the checkpoints of its logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from exporter.beams.snapshot import BeamKey
from exporter.beams.store import BeamStore
from exporter.config import Settings, SourceSettings, SshSourceSettings
from exporter.logs.parser import SitePatterns
from exporter.polling.output_check import OutputRules
from exporter.polling.path_check import PathCheck
from exporter.polling.poller import SourcePoller
from exporter.polling.source_loop import SourceLoop
from exporter.privacy.identifiers import Identifiers
from exporter.process.worker import Worker
from exporter.runtime.database_access import DatabaseAccess
from exporter.runtime.discovery_loop import DirectoryDiscoveryLoop, TableDiscoveryLoop
from exporter.runtime.mirror_loop import MirrorLoop
from exporter.sources import inotify
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import LogSource

_log = structlog.get_logger(__name__)

_STOP_SECONDS = 2.0
_POLL_ALL_SECONDS = 0.2
"""Longest wait of the mirror for a poll of all logs before it writes."""


def make_source(source: SourceSettings, templates: Iterable[LogPathTemplate]) -> LogSource:
    """Make the source for a section of the configuration.

    Args:
        source: the section.
        templates: its log path templates.
    """
    folders = {template.folder for template in templates} if source.follow_links == "inside" else None
    if isinstance(source, SshSourceSettings):
        from exporter.sources.ssh import source as ssh

        return ssh.SshLogSource(source.name, source.ssh_host, folders)
    return LocalLogSource(source.name, folders)


def output_rules(settings: Settings, source: SourceSettings) -> OutputRules | None:
    """Make the rules of the output check for a source; ``None`` if it has no output check.

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
    """Compile the patterns that the configuration adds to the built-in rules."""
    patterns, markers = settings.progress_tracking.patterns, settings.completion_markers
    return SitePatterns.of(
        patterns.total_batches, patterns.current_batch, markers.success_patterns, markers.failure_patterns
    )


class Pipeline:
    """The threads that follow beams.

    Args:
        settings: the configuration.
        store: receives all results.
        identifiers: which statuses may be shown.
        clock: the present instant (:meth:`exporter.process.clock.Clock.now`).
        before: the stopped pipeline until a reload.
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
        self._sources: dict[str, SourceLoop] = {}
        self._polled: set[str] = set()
        self._database: DatabaseAccess | None = None
        self._mirror: MirrorLoop | None = None
        self._workers: list[Worker] = []
        self._mirror_worker: Worker | None = None
        self._watch_version = store.watch_version
        if settings.progress_tracking.enabled:
            self._build(identifiers, clock, before)
        if before is not None:
            before.close()
            for name in before._sources.keys() - self._sources.keys():
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
            watcher = inotify.open_watcher() if source.kind == "local" else None
            poller = SourcePoller(
                source,
                templates,
                store,
                site=site,
                clock=clock,
                watcher=watcher,
                interval_seconds=interval,
                outputs=output_rules(settings, each),
            )
            if before is not None and each.name in before._sources:
                poller.adopt(before._sources[each.name].poller)
            else:
                poller.resume(*store.checkpoints(each.name))
            discover = None
            if names:
                discover = DirectoryDiscoveryLoop(settings, source, templates, store, clock).run_once
            loop = SourceLoop(poller, watcher, interval, discover)
            self._sources[each.name] = loop
            self._add_worker(f"source {each.name}", loop.run_once, loop)
        if settings.database is not None and not names:
            access = DatabaseAccess(
                settings, settings.database, store, before._database if before is not None else None
            )
            self._database = access
            table = TableDiscoveryLoop(settings, access, store, identifiers, clock)
            self._add_worker("discovery", partial(self._discover, table))
            if settings.mirror.enabled:
                earlier = before._mirror if before is not None else None
                self._mirror = MirrorLoop(settings, access, store, clock, earlier, self._poll_all)
                self._mirror_worker = self._add_worker("mirror", self._mirror.run_once)

    def _add_worker(self, name: str, step: Callable[[], float], waiter: SourceLoop | None = None) -> Worker:
        def run_step() -> float:
            wait = step()
            self._polled.add(name)
            return wait

        self._store.declare_errors(name)
        worker = Worker(name, run_step, self._store.count_error, waiter=waiter)
        self._workers.append(worker)
        return worker

    def _discover(self, table: TableDiscoveryLoop) -> float:
        table.run_once()
        if self._watch_version != self._store.watch_version:
            self._watch_version = self._store.watch_version
            for loop in self._sources.values():
                loop.wake()  # new beams are polled at once
        return self._settings.discovery.interval_seconds

    def _poll_all(self) -> None:
        """Make every source poll all its logs. A slow source is not waited for."""
        deadline = time.monotonic() + _POLL_ALL_SECONDS
        for polled in [loop.poll_all() for loop in self._sources.values()]:
            polled.wait(max(0.0, deadline - time.monotonic()))

    def path_checks(self, key: BeamKey) -> list[PathCheck]:
        """Return what the last polls found at the paths of a beam's log, for all sources, without a new poll."""
        return [check for loop in self._sources.values() for check in loop.poller.path_checks(key)]

    def start(self) -> None:
        """Start every thread."""
        if self._mirror_worker is not None:
            self._store.add_listener(self._mirror_worker.wake)
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Stop every thread and write pending progress."""
        if self._mirror_worker is not None:
            self._store.remove_listener(self._mirror_worker.wake)
        for worker in self._workers:
            worker.stop()
        # A source may be waiting for its host: closing the connection ends the wait.
        for loop in self._sources.values():
            loop.poller.close()
        if self._database is not None:
            self._database.interrupt()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in self._workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                _log.error("thread did not end in time", thread=worker.name, seconds=_STOP_SECONDS)
        if self._mirror is not None:
            self._mirror.run_once(now=True)

    def close(self) -> None:
        """Close the inotify watchers, after :meth:`stop`."""
        for loop in self._sources.values():
            loop.close()

    def problem(self) -> str | None:
        """Why a thread does not work; ``None`` if all work."""
        return next((problem for worker in self._workers if (problem := worker.problem) is not None), None)

    def unready(self) -> str | None:
        """Which threads have not finished their first step; ``None`` if all have."""
        missing = sorted(worker.name for worker in self._workers if worker.name not in self._polled)
        return f"not polled yet: {', '.join(missing)}" if missing else None
