"""Decides which logs of a source to poll, and when.

A log is *active* for some seconds after it was met or has changed: it is polled at every interval. All others are
*quiet*: each is polled every five seconds, in slices, so that ten thousand logs are not polled at once. A hint
(:mod:`exporter.sources.inotify`) has a log polled before its time, and changes nothing else.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum

import structlog

from exporter.beams.snapshot import BeamKey, BeamRow, WatchedBeam
from exporter.polling.sink import PollSink
from exporter.polling.targets import Target, TargetGroup
from exporter.privacy.identifiers import SafeText
from exporter.sources.inotify import InotifyWatcher
from exporter.sources.log_paths import LogPathError, LogPathTemplate
from exporter.sources.source import NO_KNOWN_STATS, LogStat

_log = structlog.get_logger(__name__)

QUIET_SECONDS = 5.0
"""Between two polls of a quiet log: the longest that any change may go unseen."""

ACTIVE_SECONDS = 15.0
"""A log is active for so long after its last change."""

_LOGS_PER_SLICE = 1000
"""Quiet logs polled at once; a thousand take about 2 ms."""

_MOST_SLICES = 5
"""So that a source of quiet logs wakes its thread once a second at most."""


class PollScope(Enum):
    """Which logs a poll is of."""

    ALL = "all"
    DUE = "due"
    HINTED = "hinted"


@dataclass(frozen=True, slots=True)
class DueLogs:
    """Which logs to poll now.

    Args:
        targets: beams whose logs are to be examined.
        known: the unchanged logs that are due, with their last stat.
        watched: all beams of the source; ``None`` if they are the same as the last time.
    """

    targets: Sequence[Target]
    known: Mapping[str, LogStat]
    watched: AbstractSet[BeamKey] | None = None


class PollSchedule:
    """Decides which logs of one source to poll. Used by the source's thread.

    Args:
        source: its name.
        templates: where a beam's log may be.
        sink: knows the beams; counts refused ids.
        clock: the present instant.
        watcher: gives hints; ``None`` for none.
        interval_seconds: between two polls of an active log.
        one_slice: poll all quiet logs at once: a folder listing over SSH costs the same for any number of them.
    """

    def __init__(
        self,
        source: str,
        templates: Iterable[LogPathTemplate],
        sink: PollSink,
        *,
        clock: Callable[[], float],
        watcher: InotifyWatcher | None = None,
        interval_seconds: float = 0.5,
        one_slice: bool = False,
    ) -> None:
        self._source = source
        self._templates = tuple(templates)
        self._sink = sink
        self._watcher = watcher
        self._interval_seconds = interval_seconds
        self._quiet_seconds = max(QUIET_SECONDS, interval_seconds)
        self._most_slices = 1 if one_slice else _MOST_SLICES
        self._clock = clock
        self._targets: dict[BeamKey, Target] = {}
        self._by_path: dict[str, tuple[Target, ...]] = {}
        self._watch_version: int | None = None
        self._active = TargetGroup(-math.inf)
        self._active_until: dict[Target, float] = {}  # in the order of their ends
        self._slices = [TargetGroup(-math.inf)]
        self._next_slice = itertools.count()
        self._unfinished: AbstractSet[BeamKey] = frozenset()
        self._polling: Sequence[TargetGroup] = ()
        self._owed: Sequence[TargetGroup] = ()  # due, and not polled yet: the source did not answer
        self._retry_at = -math.inf

    def next(self, scope: PollScope) -> DueLogs:
        """Return what to poll now.

        Hinted logs, and logs that were not read to their ends, are part of it in every scope.

        Args:
            scope: all logs, those that are due, or only hinted ones.
        """
        now = self._clock()
        watched = self._update_targets(now) if scope is not PollScope.HINTED else None
        expected = self._expected()
        if scope is PollScope.HINTED:
            self._polling = ()
        else:
            self._polling = self._owed = self._due_groups(now, scope)
            self._retry_at = now + self._interval_seconds
        targets = dict.fromkeys(target for group in self._polling for target in group.open) | expected
        return DueLogs(list(targets), _unchanged(self._polling), watched)

    def polled(self, at: float) -> None:
        """Note that the source has answered for what :meth:`next` returned. Without that, it stays due.

        Args:
            at: when the poll began.
        """
        for group in self._polling:
            group.polled_at = at
        if self._polling:
            self._owed = ()

    def wait_seconds(self) -> float:
        """Return the seconds until the next poll is due."""
        now = self._clock()
        if self._owed:
            return max(0.0, self._retry_at - now)
        if self._unfinished or self._sink.watch_version != self._watch_version:
            return 0.0
        due_at = min(group.due_at for group in self._slices)
        if self._active_until:
            due_at = min(due_at, self._active.due_at)
        return max(0.0, due_at - now)

    def seen(self, target: Target, there: list[tuple[str, LogStat]], at: float) -> Sequence[str]:
        """Note what a poll has found at a target's paths.

        Args:
            target: the beam.
            there: the paths at which a log is, with its stat.
            at: when the poll began.

        Returns:
            The paths at which there was no log at the poll before; none after the first poll.
        """
        target.polled_before, target.polled_at = target.polled_at, at
        before, now = target.present, tuple(path for path, _ in there)
        # The usual case shares the tuple: ten thousand of them are a megabyte.
        target.present = target.paths if now == target.paths else now
        if self._watcher is not None:
            for path in target.paths:
                self._watcher.watch_folder(os.path.dirname(path))
            for path, stat in there:
                self._watcher.watch_log(path, stat.identity)
        return () if before is None else [path for path in now if path not in before]

    def set_unchanged(self, target: Target, stat: LogStat) -> None:
        """Note that nothing is left to read for a target until its log's stat changes, if it has only one path."""
        if target.group is not None and len(target.paths) == 1 == len(self._by_path.get(target.paths[0], ())):
            target.group.set_unchanged(target, stat)

    def reopen(self, changed: Iterable[str]) -> list[Target]:
        """Return the targets whose unchanged logs have changed; they are examined at the next poll, too.

        Args:
            changed: paths of logs whose stat differs from the known one.
        """
        found = []
        for path in changed:
            for target in self._by_path.get(path, ()):
                if target.group is not None and target not in target.group.open:
                    target.group.reopen(target)
                    found.append(target)
        return found

    def changed(self, target: Target) -> None:
        """Note that a target's log has changed: it is active from now on."""
        if target.group is not None:
            self._set_active(target, self._clock())

    def unfinished(self, beams: AbstractSet[BeamKey]) -> None:
        """Note which logs were not read to their ends; they are part of the next poll."""
        self._unfinished = beams

    def target(self, key: BeamKey) -> Target | None:
        """Return a beam's target; ``None`` if this source does not poll for it. May be called from any thread."""
        return self._targets.get(key)

    def missing_fields(self, row: BeamRow) -> tuple[str, ...]:
        """Return the fields of a row that are empty though a log path needs them. May be called from any thread."""
        if row.log_path is not None:
            return ()
        values = _fields(row)
        return tuple(sorted({name for each in self._templates for name in each.fields if not values.get(name)}))

    def _set_active(self, target: Target, now: float) -> None:
        if not self._active_until:
            self._active.due_at = now + self._interval_seconds
        self._active_until.pop(target, None)
        self._active_until[target] = now + ACTIVE_SECONDS
        self._active.add(target)

    def _due_groups(self, now: float, scope: PollScope) -> list[TargetGroup]:
        for target in list(itertools.takewhile(lambda each: self._active_until[each] <= now, self._active_until)):
            del self._active_until[target]
            self._slices[next(self._next_slice) % len(self._slices)].add(target)
        groups = [self._active, *self._slices]
        due = {group for group in groups if group.due_at <= now}
        for group in due:
            period = self._interval_seconds if group is self._active else self._quiet_seconds
            group.due_at = _next_due(group.due_at, now, period)
        return [group for group in groups if scope is PollScope.ALL or group in due or group in self._owed]

    def _expected(self) -> dict[Target, None]:
        """Return the targets whose logs are hinted, or were not read to their ends."""
        paths = self._watcher.read_hints() if self._watcher is not None else ()
        found = {target: None for path in paths for target in self._by_path.get(path, ())}
        found |= {self._targets[key]: None for key in self._unfinished if key in self._targets}
        for target in found:
            _reopen(target)
        return found

    def _update_targets(self, now: float) -> AbstractSet[BeamKey] | None:
        """Take the beams that the sink has now; ``None`` if they have not changed."""
        version = self._sink.watch_version
        if version == self._watch_version:
            return None
        self._watch_version = version
        watched = self._sink.watched_beams(self._source)
        keys = {beam.row.key for beam in watched}
        for key in [key for key in self._targets if key not in keys]:
            self._remove(self._targets.pop(key))
        for beam in watched:
            self._update_target(beam, now)
        self._by_path = {}
        for target in self._targets.values():
            for path in target.paths:
                self._by_path[path] = (*self._by_path.get(path, ()), target)
        if self._watcher is not None:
            self._watcher.keep_only({os.path.dirname(path) for path in self._by_path}, self._by_path)
        self._make_slices(now)
        return keys

    def _make_slices(self, now: float) -> None:
        """Spread the quiet targets over as many slices as they need."""
        count = min(self._most_slices, max(1, math.ceil(len(self._targets) / _LOGS_PER_SLICE)))
        if count == len(self._slices):
            return
        before, step = self._slices, self._quiet_seconds / count
        self._slices = [TargetGroup(now + number * step) for number in range(count)]
        slices = itertools.cycle(self._slices)
        for target in self._targets.values():
            if target.group in before:
                next(slices).add(target)

    def _update_target(self, beam: WatchedBeam, now: float) -> None:
        row = beam.row
        row_fields = (row.beam_path, row.hpc_job_id, row.log_path)
        known = self._targets.get(row.key)
        if known is not None and known.row_fields == row_fields:
            known.beam = beam
            _reopen(known)
            return
        if row.log_path is not None:
            paths = [row.log_path]
        else:
            rendered = (self._render(template, row) for template in self._templates)
            paths = list(dict.fromkeys(path for path in rendered if path is not None))
        target = Target(beam, row_fields, tuple(paths), known.present if known is not None else None)
        if known is not None:
            self._remove(known)
        self._targets[row.key] = target
        self._set_active(target, now)
        self._active.due_at = now

    def _remove(self, target: Target) -> None:
        self._active_until.pop(target, None)
        if target.group is not None:
            target.group.remove(target)

    def _render(self, template: LogPathTemplate, row: BeamRow) -> str | None:
        try:
            return template.render(_fields(row))
        except LogPathError as error:
            self._sink.count_refused({"log_path": 1})
            _log.warning(
                "log path refused",
                case=row.key.case_id,
                beam=row.key.beam_id,
                source=self._source,
                # Its text names the template and the fields, never their values.
                error=SafeText(error),
            )
            return None


def _fields(row: BeamRow) -> dict[str, str | None]:
    return {
        "case_id": row.key.case_id,
        "beam_id": row.key.beam_id,
        "beam_path": row.beam_path,
        "hpc_job_id": row.hpc_job_id,
    }


def _reopen(target: Target) -> None:
    if target.group is not None:
        target.group.reopen(target)


def _next_due(due_at: float, now: float, period: float) -> float:
    """Return the first instant after ``now`` that is whole periods after ``due_at``, so that slices stay apart."""
    if due_at == -math.inf:
        return now + period
    return due_at + period * (math.floor((now - due_at) / period) + 1)


def _unchanged(groups: Iterable[TargetGroup]) -> Mapping[str, LogStat]:
    """Return the unchanged logs of all groups."""
    each = [group.unchanged for group in groups if group.unchanged]
    if len(each) < 2:  # the usual case: ten thousand need not be copied
        return each[0] if each else NO_KNOWN_STATS
    return {path: stat for unchanged in each for path, stat in unchanged.items()}
