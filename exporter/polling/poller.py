"""Following all beams of one source: source -> tailer -> parser -> store.

A poll asks the source for the sizes of all due logs (:mod:`exporter.polling.schedule`) at once, and reads those that
have changed. What is wrong with one log is reported (:mod:`exporter.polling.stats`) and stops nothing else.
:class:`ProgressMonitor` is in :mod:`exporter.polling.progress_monitor`; it can be imported from here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from exporter.beams.snapshot import BeamKey
from exporter.beams.store import BeamStore
from exporter.logs.events import Event, LogRead, LogReplaced
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.polling.output_check import OutputChecker, OutputRules
from exporter.polling.progress_monitor import ProgressMonitor
from exporter.polling.schedule import Candidates, PollSchedule
from exporter.polling.source_clock import SourceClock
from exporter.polling.stats import PollStats
from exporter.privacy.identifiers import Identifiers
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.inotify import InotifyWatcher
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.missing_folders import MissingFolders
from exporter.sources.source import LogProblem, LogSource, LogStat, ReadRequest, SourceUnavailable, UnexpectedError
from exporter.sources.tailer import Tailer

__all__ = ["ProgressMonitor", "SourcePoller"]

READS_PER_POLL = 64
"""Most rounds of reads in one look, so that neither stopping nor the other logs wait for a long catch-up."""

BYTES_PER_READ = 16 << 20
"""Most bytes held in memory at once while catching up."""

Stats = Mapping[str, LogStat | LogProblem | None]


@dataclass(slots=True)
class _Following:
    """One log being followed.

    Args:
        live: false until all has been read that stood there at the first look.
        resumed: an earlier process had read some of it, or had looked for it in vain; true until what came meanwhile
            has been read.
        polled: how the log looked at the last poll; ``None`` where that is not known.
    """

    tailer: Tailer
    parser: TpsLogParser
    live: bool
    resumed: bool = False
    polled: LogStat | None = None


class SourcePoller:
    """Keeps the store true to the logs of one source. Used by one thread.

    Args:
        source: where the logs are.
        templates: where a beam's log may be; all are tried, the newest log wins.
        store: told what the logs say.
        site: the site's own patterns.
        identifiers: how ids are shown in log lines.
        clock: the present instant; read once before and once after each look, and after each round of reads.
        watcher: the kernel's, where the source is this machine; whoever made them closes them.
        polls_per_hinted_log: a log whose changes are announced is looked at in every so many-th round all the same.
        outputs: which dose files must be there; ``None`` for none.
    """

    def __init__(
        self,
        source: LogSource,
        templates: Iterable[LogPathTemplate],
        store: BeamStore,
        *,
        site: SitePatterns,
        identifiers: Identifiers,
        clock: Callable[[], float],
        watcher: InotifyWatcher | None = None,
        polls_per_hinted_log: int = 1,
        outputs: OutputRules | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._site = site
        self._clock = clock
        self._following: dict[BeamKey, _Following] = {}
        self._stats = PollStats(source, identifiers, store.count_error)
        self._outputs = None if outputs is None else OutputChecker(source, outputs, store, self._stats)
        self._checkpoints: dict[BeamKey, Checkpoint | None] = {}
        self._looked_at: float | None = None  # when the last whole round began
        self._source_clock = SourceClock(source.name, store, self._stats, clock)
        self._closed = False
        templates = tuple(templates)
        self._log_places = len(templates)
        self._folders = MissingFolders(templates)
        self._folder_missing_at: float | None = None  # when the last poll with a missing folder began
        self._turns = PollSchedule(
            source.name,
            templates,
            store,
            identifiers=identifiers,
            watcher=watcher,
            polls_per_hinted_log=polls_per_hinted_log,
        )

    def adopt(self, other: SourcePoller) -> None:
        """Go on where ``other`` (the same source before a reload) stopped: offsets, parsers, counters."""
        self._following = other._following
        self._stats.adopt(other._stats)
        self._folders.adopt(other._folders)
        self._checkpoints = other._checkpoints
        self._looked_at = other._looked_at
        self._source_clock.adopt(other._source_clock)

    def resume(self, checkpoints: Mapping[BeamKey, Checkpoint | None], looked_at: float | None) -> None:
        """Go on where an earlier process stopped.

        Args:
            checkpoints: how far it had read; ``None`` where it had found no log.
            looked_at: when it looked last.
        """
        self._checkpoints = dict(checkpoints)
        self._looked_at = looked_at
        self._source_clock.resume()

    def poll(self, *, hinted_only: bool = False) -> bool:
        """Look at the logs once and read what has been written.

        Args:
            hinted_only: only at those that the kernel says have changed; a round is due later.

        Returns:
            Whether there is more to read at once.
        """
        began = self._clock()
        more = round_over = False
        if self._folders.missing:
            self._folder_missing_at = began
        try:
            more, round_over = self._poll(began, hinted_only)
            if round_over:
                self._stats.folders_changed(self._folders.check(self._source, began))
            self._stats.answers()
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is down; said and counted
            if self._closed:
                # Its connection was ended under it: that is no trouble of the host.
                return False
            self._stats.is_down(error if isinstance(error, SourceUnavailable) else UnexpectedError(error))
        if round_over:
            self._looked_at = began
        self._publish(began)
        return more

    def failed(self, error: Exception) -> None:
        """Looking for logs of the source raised an exception: the source is down for it.

        Args:
            error: the exception.
        """
        if self._closed:
            return
        began = self._clock()
        self._stats.is_down(UnexpectedError(error))
        self._publish(began)

    def _publish(self, began: float) -> None:
        """Update the source's health in the store after a poll that began at this instant."""
        ended = self._clock()
        self._stats.looked(ended - began)
        view = self._stats.view(self._looked_at, self._folders.missing, self._log_places)
        self._store.update_source(view, ended)

    def close(self) -> None:
        """Give back what the source holds; a look that is under way ends, and says nothing of the source."""
        self._closed = True
        self._source.close()

    def names_changed(self, folders: Collection[str]) -> bool:
        """Whether names of files in ``folders`` may be others than at the last call; true where nobody announces it."""
        return self._turns.names_changed(folders)

    def _poll(self, at: float, hinted_only: bool) -> tuple[bool, bool]:
        """Returns whether there is more to read at once, and whether this was a whole round."""
        turn = self._turns.next(at, hinted_only=hinted_only)
        if turn.watched is not None:
            self._forget_all_but(turn.watched)
        for folder in turn.distrusted:
            self._stats.distrusted(folder)
        stats = self._source.stat([path for each in turn.candidates for path in each.paths], turn.known)
        self._source_clock.forget_if_ours_was_set(at)
        grown: list[tuple[BeamKey, _Following, LogStat]] = []
        for candidates in [*turn.candidates, *self._turns.unsettle(stats)]:
            found = self._newest(candidates, stats, at)
            if found is not None:
                grown.append((candidates.beam.row.key, *found))
                path = found[0].tailer.path
                # One that cannot be read looks changed at every look.
                if not self._stats.has_problem(path):
                    self._turns.changed(candidates, path)
        self._turns.polled(at)
        self._source_clock.publish()
        for _ in range(READS_PER_POLL):
            if not grown:
                break
            grown = self._read(grown)
        self._turns.unfinished({key for key, _, _ in grown})
        if self._outputs is not None:
            self._outputs.poll(self._clock)
        return bool(grown), turn.whole_round

    def _newest(self, candidates: Candidates, stats: Stats, at: float) -> tuple[_Following, LogStat] | None:
        """The log to read for a beam, where there is one with something new."""
        beam = candidates.beam
        there: list[tuple[str, LogStat]] = []
        for path in candidates.paths:
            stat = stats.get(path)
            if isinstance(stat, LogProblem):
                self._stats.cannot_read(beam.row.key, path, stat)
            elif stat is not None:
                self._stats.is_there(path)
                there.append((path, stat))
        appeared = self._turns.seen(candidates, there, at)
        if self._folder_was_missing(candidates.polled_before):
            # A file system was mounted, or a folder came back: its logs may be of any age.
            appeared = ()
        following = self._following.get(beam.row.key)
        if following is not None and len(there) == 1:
            # The usual case, for every beam at every look.
            [(path, stat)] = there
            if beam.path == path == following.tailer.path and not following.tailer.changed(stat):
                self._turns.settle(candidates, stat)
                return None
        there.sort(key=lambda one: one[1].modified_at, reverse=True)
        moved = beam.path is not None and beam.path not in candidates.paths
        before: tuple[str, LogStat] | None = None
        if following is not None and following.polled is not None:
            before, following.polled = (following.tailer.path, following.polled), None
        grown = self._source_clock.grown(beam.row.key, before, there, candidates.polled_before)
        for path, stat in there:
            written = path in appeared or path in grown
            if not self._store.claim(beam.row.key, self._source.name, path, stat, at, moved=moved, written=written):
                continue
            if following is None or following.tailer.path != path:
                following = self._follow(beam.row.key, path, path in appeared)
                self._following[beam.row.key] = following
            following.polled = stat
            if len(there) > 1:
                self._source_clock.keep(beam.row.key, [one for one in there if one[0] != path])
            return (following, stat) if following.tailer.changed(stat) else None
        self._source_clock.keep(beam.row.key, there)
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
                self._stats.cannot_read(key, path, answer)
                continue
            try:
                if self._apply(key, following, stat, answer, at):
                    unfinished.append((key, following, stat))
            except Exception:  # noqa: BLE001 - one log must not stop the others; said and counted
                self._stats.stumbled(key, path)
        return unfinished

    def _apply(self, key: BeamKey, following: _Following, stat: LogStat, data: bytes, at: float) -> bool:
        """Apply what was read of one log at an instant; returns whether to read on."""
        chunk = following.tailer.receive(data)
        if chunk is None:
            return True
        self._stats.has_read(chunk.size_bytes)
        events: list[Event] = []
        if chunk.replaced:
            events.append(LogReplaced())
            following.parser.reset()
            following.live = not following.resumed
        if chunk.size_bytes or chunk.replaced or not following.resumed:
            events += following.parser.feed(chunk.read, chunk.start)
            events.append(LogRead(following.tailer.offset, following.parser.line_complete, following.live))
        # What is new was written between the last look and now, whatever the clock of the log's host says.
        modified_at = self._store.timeline.from_wall(stat.modified_at - (self._source_clock.offset_seconds or 0.0))
        written_at = min(modified_at, at)
        looked_at = self._looked_at if following.live or following.resumed else None
        if looked_at is not None:
            written_at = max(written_at, min(looked_at, at))
        tailer = following.tailer
        checkpoint = Checkpoint.of(tailer, following.parser)
        again = self._store.apply(
            key,
            tailer.path,
            events,
            written_at,
            more=chunk.more,
            read_at=at,
            recent=tailer.last_bytes,
            checkpoint=checkpoint,
            polled_at=looked_at,
        )
        if again:
            tailer.restart()
            return True
        if not chunk.more:
            following.live, following.resumed = True, False
        return chunk.more

    def _forget_all_but(self, keys: AbstractSet[BeamKey]) -> None:
        self._stats.forget_all_but(keys)
        for known in (self._following, self._checkpoints):
            if len(known) == len(keys) and known.keys() == keys:
                continue
            for key in [key for key in known if key not in keys]:
                del known[key]
        self._source_clock.forget_all_but(keys)
