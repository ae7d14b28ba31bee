"""Following all beams of one source: source -> tailer -> parser -> store.

A poll asks the source for the sizes of all due logs (:mod:`exporter.polling.schedule`) at once, and reads those that
have changed. What is wrong with one log is reported (:mod:`exporter.polling.stats`) and stops nothing else.
:class:`ProgressMonitor` is in :mod:`exporter.polling.progress_monitor`; it can be imported from here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from exporter.beams.snapshot import BeamKey
from exporter.logs.events import Event, LogRead, LogReplaced
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.polling.output_check import OutputChecker, OutputRules
from exporter.polling.path_check import PathCheck
from exporter.polling.progress_monitor import ProgressMonitor
from exporter.polling.schedule import PollSchedule, PollScope
from exporter.polling.sink import PollSink
from exporter.polling.source_clock import SourceClock
from exporter.polling.stats import PollStats
from exporter.polling.targets import Target
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.inotify import InotifyWatcher
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.missing_folders import MissingFolders
from exporter.sources.source import LogProblem, LogSource, LogStat, ReadRequest, SourceUnavailable, UnexpectedError
from exporter.sources.tailer import Tailer

__all__ = ["ProgressMonitor", "SourcePoller"]

READS_PER_POLL = 64
"""Most rounds of reads in one poll, so that neither stopping nor the other logs wait for a long catch-up."""

BYTES_PER_READ = 16 << 20
"""Most bytes held in memory at once while catching up."""

Stats = Mapping[str, LogStat | LogProblem | None]


@dataclass(slots=True)
class _Following:
    """One log that is read.

    Args:
        live: whether everything has been read that stood there at the first poll.
        resumed: whether an earlier process had read some of it, or had polled for it in vain. ``False`` once all that
            was written meanwhile has been read.
        last_stat: its stat at the last poll; ``None`` where that is not known.
        unseen_since: when the poll before the last one began; what is new was written since. ``None`` where that is
            not known.
    """

    tailer: Tailer
    parser: TpsLogParser
    live: bool
    resumed: bool = False
    last_stat: LogStat | None = None
    unseen_since: float | None = None


class SourcePoller:
    """Polls the logs of one source and gives what they say to the store. Used by one thread.

    Args:
        source: where the logs are.
        templates: where a beam's log may be; all are tried, and the newest log wins.
        sink: receives what the logs say.
        site: the site's own patterns.
        clock: the present instant; read once before and once after each poll, and after each round of reads.
        watcher: gives hints; whoever made it closes it.
        interval_seconds: between two polls of an active log.
        outputs: which dose files must be there; ``None`` for none.
    """

    def __init__(
        self,
        source: LogSource,
        templates: Iterable[LogPathTemplate],
        sink: PollSink,
        *,
        site: SitePatterns,
        clock: Callable[[], float],
        watcher: InotifyWatcher | None = None,
        interval_seconds: float = 0.5,
        outputs: OutputRules | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._site = site
        self._clock = clock
        self._following: dict[BeamKey, _Following] = {}
        self._stats = PollStats(source, sink.count_error)
        self._outputs = None if outputs is None else OutputChecker(source, outputs, sink, self._stats)
        self._checkpoints: dict[BeamKey, Checkpoint | None] = {}
        # When the last poll of due logs began.
        self._last_poll_at: float | None = None
        self._source_clock = SourceClock(source.name, sink, self._stats, clock)
        self._closed = False
        templates = tuple(templates)
        self._log_places = len(templates)
        self._folders = MissingFolders(templates)
        # When the last poll began at which a folder was missing.
        self._folder_missing_at: float | None = None
        self._schedule = PollSchedule(
            source.name,
            templates,
            sink,
            clock=clock,
            watcher=watcher,
            interval_seconds=interval_seconds,
            one_slice=source.kind != "local",
        )

    def adopt(self, other: SourcePoller) -> None:
        """Continue where ``other`` stopped: offsets, parsers and counters of the same source before a reload."""
        self._following = other._following
        self._stats.adopt(other._stats)
        self._folders.adopt(other._folders)
        self._checkpoints = other._checkpoints
        self._last_poll_at = other._last_poll_at
        self._source_clock.adopt(other._source_clock)

    def resume(self, checkpoints: Mapping[BeamKey, Checkpoint | None], polled_at: float | None) -> None:
        """Continue where an earlier process stopped.

        Args:
            checkpoints: how far it had read; ``None`` for a beam whose log it had not found.
            polled_at: when it polled last.
        """
        self._checkpoints = dict(checkpoints)
        self._last_poll_at = polled_at
        self._source_clock.resume()

    def poll(self, scope: PollScope = PollScope.ALL) -> bool:
        """Poll logs and read what was written.

        Args:
            scope: all logs, those that are due, or only hinted ones.

        Returns:
            Whether unread bytes are left.
        """
        began = self._clock()
        more = answered = False
        if self._folders.missing:
            self._folder_missing_at = began
        try:
            more = self._poll(began, scope)
            answered = scope is not PollScope.HINTED
            if answered:
                self._stats.log_folder_change(self._folders.check(self._source, began))
            self._stats.set_up()
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is down; logged and counted
            if self._closed:
                # close() ended its connection: that is no trouble of the host.
                return False
            self._stats.set_down(error if isinstance(error, SourceUnavailable) else UnexpectedError(error))
        if answered:
            self._last_poll_at = began
        self._publish(began)
        return more

    def wait_seconds(self) -> float:
        """Return the seconds until the next poll is due."""
        return self._schedule.wait_seconds()

    def failed(self, error: Exception) -> None:
        """Report that finding logs of the source raised an exception: the source is down.

        Args:
            error: the exception.
        """
        if self._closed:
            return
        began = self._clock()
        self._stats.set_down(UnexpectedError(error))
        self._publish(began)

    def path_checks(self, key: BeamKey) -> tuple[PathCheck, ...]:
        """Return what the last poll found at each path where a beam's log may be. May be called from any thread.

        Nothing is polled for it. A log that is there and not followed was not claimed: the store knows why.

        Args:
            key: the beam.

        Returns:
            One check per path; none if the source does not poll for the beam.
        """
        target = self._schedule.target(key)
        if target is None:
            return ()
        source, following, present = self._source.name, self._following.get(key), target.present
        followed = following.tailer.path if following is not None else None
        checks = []
        for path in target.paths:
            found = "not_polled" if present is None else "log" if path in present else "missing"
            checks.append(PathCheck(source, path, self._stats.problem(path) or found, path == followed))
        missing = self._schedule.missing_fields(target.beam.row)
        return (*checks, PathCheck(source, "", "no_path", missing_fields=missing)) if missing else tuple(checks)

    def close(self) -> None:
        """Close what the source holds. A poll that is under way ends, and does not report the source as down."""
        self._closed = True
        self._source.close()

    def _publish(self, began: float) -> None:
        """Update the source's health in the store after a poll that began at this instant."""
        ended = self._clock()
        self._stats.record_poll(ended - began)
        view = self._stats.view(self._last_poll_at, self._folders.missing, self._log_places)
        self._sink.update_source(view, ended)

    def _poll(self, at: float, scope: PollScope) -> bool:
        """Poll at an instant; return whether unread bytes are left."""
        due = self._schedule.next(scope)
        if due.watched is not None:
            self._keep_only(due.watched)
        stats = self._source.stat([path for each in due.targets for path in each.paths], due.known)
        self._source_clock.detect_clock_step(at)
        grown: list[tuple[BeamKey, _Following, LogStat]] = []
        for target in [*due.targets, *self._schedule.reopen(stats)]:
            found = self._newest(target, stats, at)
            if found is not None:
                grown.append((target.beam.row.key, *found))
                # A log that cannot be read looks changed at every poll.
                if not self._stats.problem(found[0].tailer.path):
                    self._schedule.changed(target)
        self._schedule.polled(at)
        self._source_clock.publish()
        for _ in range(READS_PER_POLL):
            if not grown:
                break
            grown = self._read(grown)
        self._schedule.unfinished({key for key, _, _ in grown})
        if self._outputs is not None:
            self._outputs.poll(self._clock)
        return bool(grown)

    def _newest(self, target: Target, stats: Stats, at: float) -> tuple[_Following, LogStat] | None:
        """Return the log to read for a beam; ``None`` if nothing is new."""
        beam = target.beam
        there: list[tuple[str, LogStat]] = []
        for path in target.paths:
            stat = stats.get(path)
            if isinstance(stat, LogProblem):
                self._stats.log_problem(beam.row.key, path, stat)
            elif stat is not None:
                self._stats.clear_problem(path)
                there.append((path, stat))
        appeared = self._schedule.seen(target, there, at)
        if self._folder_was_missing(target.polled_before):
            # A file system was mounted, or a folder came back: its logs may be of any age.
            appeared = ()
        following = self._following.get(beam.row.key)
        if following is not None and len(there) == 1:
            # The usual case, for most beams at every poll.
            [(path, stat)] = there
            if beam.path == path == following.tailer.path and not following.tailer.changed(stat):
                self._schedule.set_unchanged(target, stat)
                return None
        there.sort(key=lambda one: one[1].modified_at, reverse=True)
        path_moved = beam.path is not None and beam.path not in target.paths
        before: tuple[str, LogStat] | None = None
        if following is not None and following.last_stat is not None:
            before, following.last_stat = (following.tailer.path, following.last_stat), None
        grown = self._source_clock.find_grown(beam.row.key, before, there, target.polled_before)
        for path, stat in there:
            written = path in appeared or path in grown
            if not self._sink.claim(
                beam.row.key, self._source.name, path, stat, at, path_moved=path_moved, written=written
            ):
                continue
            if following is None or following.tailer.path != path:
                following = self._follow(beam.row.key, path, path in appeared)
                self._following[beam.row.key] = following
            following.last_stat = stat
            following.unseen_since = self._last_poll_at if target.polled_before is None else target.polled_before
            if len(there) > 1:
                self._source_clock.remember(beam.row.key, [one for one in there if one[0] != path])
            return (following, stat) if following.tailer.changed(stat) else None
        self._source_clock.remember(beam.row.key, there)
        return None

    def _folder_was_missing(self, polled_at: float | None) -> bool:
        """Whether a folder of the source did not exist at a poll that began then."""
        missing_at = self._folder_missing_at
        return missing_at is not None and polled_at is not None and polled_at <= missing_at

    def _follow(self, key: BeamKey, path: str, appeared: bool) -> _Following:
        known = key in self._checkpoints
        checkpoint = self._checkpoints.pop(key, None)
        if checkpoint is not None and checkpoint.path == path:
            return _Following(*checkpoint.reopen(self._site), live=False, resumed=True)
        # One that an earlier process looked for in vain has appeared since.
        resumed = known and checkpoint is None and not appeared
        return _Following(Tailer(path), TpsLogParser(self._site), live=appeared, resumed=resumed)

    def _read(self, grown: list[tuple[BeamKey, _Following, LogStat]]) -> list[tuple[BeamKey, _Following, LogStat]]:
        """Read the next bytes of each log.

        Returns:
            Those with more to read.
        """
        requests: list[ReadRequest] = []
        asked = 0
        for _, following, stat in grown:
            request = following.tailer.request(stat)
            asked += request.length
            if requests and asked > BYTES_PER_READ:
                break
            requests.append(request)
        answers = self._source.read(requests)
        at = self._clock()  # not when the poll began: a host may have taken its time
        unfinished = grown[len(requests) :]
        for (key, following, stat), answer in zip(grown, answers, strict=False):
            path = following.tailer.path
            if isinstance(answer, LogProblem):
                self._stats.log_problem(key, path, answer)
                continue
            try:
                if self._apply(key, following, stat, answer, at):
                    unfinished.append((key, following, stat))
            except Exception:  # noqa: BLE001 - one log must not stop the others; said and counted
                self._stats.log_unexpected_error(key, path)
        return unfinished

    def _apply(self, key: BeamKey, following: _Following, stat: LogStat, data: bytes, at: float) -> bool:
        """Apply what was read of one log at an instant; return whether to read on."""
        chunk = following.tailer.receive(data)
        if chunk is None:
            return True
        self._stats.count_read(chunk.size_bytes)
        events: list[Event] = []
        if chunk.replaced:
            events.append(LogReplaced())
            following.parser.reset()
            following.live = not following.resumed
        if chunk.size_bytes or chunk.replaced or not following.resumed:
            events += following.parser.feed(chunk.read, chunk.start)
            events.append(LogRead(following.tailer.offset, following.parser.line_complete, following.live))
        # What is new was written between the poll before and now, whatever the clock of the log's host says.
        modified_at = self._sink.timeline.from_wall(stat.modified_at - (self._source_clock.offset_seconds or 0.0))
        written_at = min(modified_at, at)
        polled_at = following.unseen_since if following.live or following.resumed else None
        if polled_at is not None:
            written_at = max(written_at, min(polled_at, at))
        tailer = following.tailer
        checkpoint = Checkpoint.of(tailer, following.parser)
        again = self._sink.apply(
            key,
            tailer.path,
            events,
            written_at,
            more=chunk.more,
            read_at=at,
            recent=tailer.last_bytes,
            checkpoint=checkpoint,
            polled_at=polled_at,
        )
        if again:
            tailer.restart()
            return True
        if not chunk.more:
            following.live, following.resumed = True, False
        return chunk.more

    def _keep_only(self, keys: AbstractSet[BeamKey]) -> None:
        self._stats.keep_only(keys)
        for known in (self._following, self._checkpoints):
            if len(known) == len(keys) and known.keys() == keys:
                continue
            for key in [key for key in known if key not in keys]:
                del known[key]
        self._source_clock.keep_only(keys)
