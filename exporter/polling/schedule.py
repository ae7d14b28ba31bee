"""Whose turn it is: at which logs of a source a look looks.

A beam's log may be at several places, its candidates. Most are looked at in every round; those of which nothing is
expected soon seldom; those whose changes the kernel announces when it does, and all the same in one of so many rounds.
Nothing is read here. Others find out whether a log has changed: :meth:`PollSchedule.changed` is told of it, and
a folder whose change nobody has announced is looked at in every round from then on.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog

from exporter.beams.snapshot import BeamKey, BeamRow, WatchedBeam
from exporter.beams.store import BeamStore
from exporter.privacy.identifiers import Identifiers, SafeText
from exporter.sources.inotify import FileHints, InotifyWatcher, plain_file
from exporter.sources.log_paths import LogPathError, LogPathTemplate
from exporter.sources.source import NO_KNOWN_STATS, LogStat

_log = structlog.get_logger(__name__)

_RARELY_EVERY_SECONDS = 30.0
_NONE_RARELY_SECONDS = 60.0
"""In the first minute every log is polled in every round: one that seems to be of long ago may be written on a host
whose clock is behind."""


@dataclass(slots=True, eq=False)
class Candidates:
    """Where a beam's log may be; worked out once for the fields of its row.

    ``there`` is where one was, last time. ``announced`` says that the kernel announces every change of what is
    ``there`` (``identities``) and every log that may come. ``group`` are those it has its turn with. ``polled_at`` is
    when the last poll of its logs began, and ``polled_before`` the one before that: epoch seconds, ``None`` where that
    is not known. While a log is settled its group's ``polled_at`` counts.
    """

    beam: WatchedBeam
    row_fields: tuple[str | None, ...]
    paths: tuple[str, ...]
    there: tuple[str, ...] | None = None
    announced: bool = False
    identities: tuple[object, ...] | None = None
    group: _Group | None = None
    polled_at: float | None = None
    polled_before: float | None = None


class _Group:
    """Beams whose turn it is together.

    Attributes:
        open: those whose logs are looked into.
        settled: how the only log of each of the others looked when there was nothing to do, by its path: as long as it
            looks like that there is nothing to do.
        polled_at: when the last poll of the settled logs began, epoch seconds.
    """

    __slots__ = ("open", "polled_at", "settled")

    def __init__(self) -> None:
        self.open: dict[Candidates, None] = {}
        self.settled: dict[str, LogStat] = {}
        self.polled_at: float | None = None

    def take(self, candidates: Candidates) -> None:
        """Have a beam's turn here from now on."""
        before, candidates.group = candidates.group, self
        settled = before.settled.get(candidates.paths[0]) if before is not None and candidates.paths else None
        if settled is not None and before is not None and candidates not in before.open:
            self.settled[candidates.paths[0]] = settled
            candidates.polled_at = _later(candidates.polled_at, before.polled_at)
        else:
            self.open[candidates] = None

    def settle(self, candidates: Candidates, stat: LogStat) -> None:
        """There is nothing to do for one of them as long as its only log looks like that."""
        self.open.pop(candidates, None)
        self.settled[candidates.paths[0]] = stat

    def unsettle(self, candidates: Candidates) -> None:
        """Have the logs of one of them looked into."""
        if candidates not in self.open:
            self.open[candidates] = None
            self.settled.pop(candidates.paths[0], None)
            candidates.polled_at = _later(candidates.polled_at, self.polled_at)


@dataclass(frozen=True, slots=True)
class DueLogs:
    """Whose logs are looked at now.

    Args:
        candidates: of each beam whose logs are to be looked into.
        known: how the logs of the other beams whose turn it is look as long as there is nothing to do.
        whole_round: a round, not only what was announced.
        watched: every beam whose log is looked for, where they may be others than before.
        distrusted: folders in which a change was not announced; they are looked at in every round from now on.
    """

    candidates: Sequence[Candidates]
    known: Mapping[str, LogStat]
    whole_round: bool
    watched: AbstractSet[BeamKey] | None = None
    distrusted: Collection[str] = ()


class PollSchedule:
    """At which logs of one source to look, and when. Used by the source's thread.

    Args:
        source: its name.
        templates: where a beam's log may be.
        store: knows the beams; told how many ids were refused.
        identifiers: how ids are shown in log lines.
        watcher: the kernel's, where the source is this machine.
        polls_per_hinted_log: a log whose changes are announced has its turn in every so many-th round all the same.
    """

    def __init__(
        self,
        source: str,
        templates: Iterable[LogPathTemplate],
        store: BeamStore,
        *,
        identifiers: Identifiers,
        watcher: InotifyWatcher | None,
        polls_per_hinted_log: int,
    ) -> None:
        self._source = source
        self._templates = tuple(templates)
        self._store = store
        self._identifiers = identifiers
        self._watcher = watcher
        self._rounds_per_announced_log = polls_per_hinted_log
        self._candidates: dict[BeamKey, Candidates] = {}
        self._looked_rarely_at = float("-inf")
        self._first_round_at: float | None = None
        self._watch_version: int | None = None
        self._regroup = True
        self._by_path: dict[str, tuple[Candidates, ...]] = {}
        self._each_round, self._rare = _Group(), _Group()
        self._slices = [_Group()]
        self._round = 0
        self._once_more: list[Candidates] = []
        self._unfinished: AbstractSet[BeamKey] = frozenset()
        self._told: AbstractSet[Candidates] = frozenset()
        self._groups: Sequence[_Group] = ()
        self._unannounced: set[str] = set()
        self._listed_folders: frozenset[str] = frozenset()
        self._names_changed = True

    def next(self, at: float, *, hinted_only: bool) -> DueLogs:
        """Whose turn it is now.

        Args:
            at: now, epoch seconds.
            hinted_only: only those whose logs have changed, as the kernel says; a round is due later.
        """
        announced = self._announced()
        if announced is None or announced.lost or not hinted_only:
            return self._round_of(at, announced)
        expected = self._expected(announced.paths)
        self._told, self._groups = set(expected), ()
        return DueLogs(expected, NO_KNOWN_STATS, whole_round=False)

    def polled(self, at: float) -> None:
        """The poll of the last turn is over.

        Args:
            at: when it began, epoch seconds.
        """
        for group in self._groups:
            group.polled_at = at

    def seen(self, candidates: Candidates, there: list[tuple[str, LogStat]], at: float) -> Collection[str]:
        """A beam's logs have been looked at.

        Args:
            candidates: the beam's.
            there: those of its paths at which a log is.
            at: when the poll began, epoch seconds.

        Returns:
            Those at which there was none last time; nothing can be said of a first time.
        """
        candidates.polled_before, candidates.polled_at = candidates.polled_at, at
        before, now = candidates.there, tuple(path for path, _ in there)
        # The usual case shares the tuple: ten thousand of them are a megabyte.
        candidates.there = candidates.paths if now == candidates.paths else now
        self._see_whether_announced(candidates, there)
        return () if before is None else [path for path in now if path not in before]

    def settle(self, candidates: Candidates, stat: LogStat) -> None:
        """There is nothing to do for a beam as long as its log looks like that, if it has only one."""
        if candidates.group is not None and len(candidates.paths) == 1 == len(
            self._by_path.get(candidates.paths[0], ())
        ):
            candidates.group.settle(candidates, stat)

    def unsettle(self, changed: Iterable[str]) -> list[Candidates]:
        """Have those beams looked into of which one of these paths was settled.

        Returns:
            They.
        """
        found = []
        for path in changed:
            for candidates in self._by_path.get(path, ()):
                if candidates.group is not None and candidates not in candidates.group.open:
                    candidates.group.unsettle(candidates)
                    found.append(candidates)
        return found

    def changed(self, candidates: Candidates, path: str) -> None:
        """One of a beam's logs was found to have changed."""
        if candidates.group in self._slices and candidates not in self._told:
            self._unannounced.add(path)

    def unfinished(self, beams: AbstractSet[BeamKey]) -> None:
        """These and no others were not read to their ends: it is their turn whatever is announced."""
        self._unfinished = beams

    def names_changed(self, folders: Collection[str]) -> bool:
        """Whether names of files in ``folders`` may be others than at the last call; true where nobody announces it."""
        watcher = self._watcher
        if watcher is None:
            return True
        self._listed_folders = frozenset(folders)
        changed, self._names_changed = self._names_changed, False
        for folder in folders:
            before = watcher.watching(folder)
            changed |= not watcher.watch_folder(folder) or not before
        return changed

    def _announced(self) -> FileHints | None:
        if self._watcher is None:
            return None
        announced = self._watcher.read_hints()
        self._names_changed |= announced.lost or bool(announced.folders)
        self._unannounced -= announced.paths
        for path in announced.renamed:
            # Another file, which nobody watches yet, and which may look like the one before.
            for candidates in self._by_path.get(path, ()):
                candidates.identities = None
                _look_into(candidates)
        if announced.lost:
            # Watches may have ended, too: each log is looked at before its changes count as announced again.
            for candidates in self._candidates.values():
                candidates.announced, candidates.identities = False, None
                _look_into(candidates)
            self._unannounced.clear()
            self._regroup = True
        return announced

    def _expected(self, paths: Iterable[str]) -> list[Candidates]:
        """Those beams whose logs may be at ``paths``, and those that were not read to their ends."""
        found = {each: None for path in paths for each in self._by_path.get(path, ())}
        for key in self._unfinished:
            if key in self._candidates:
                found[self._candidates[key]] = None
        for candidates in found:
            _look_into(candidates)
        return list(found)

    def _round_of(self, at: float, announced: FileHints | None) -> DueLogs:
        """Every beam, but those whose logs' changes are announced only when it is their turn."""
        distrusted = self._distrust_the_silent()
        watched = None
        version = self._store.watch_version
        if version != self._watch_version:
            self._watch_version = version
            watched = self._renew()
        if self._regroup:
            self._group()
        if self._first_round_at is None:
            self._first_round_at = at
        rarely = (
            at - self._looked_rarely_at >= _RARELY_EVERY_SECONDS or at - self._first_round_at < _NONE_RARELY_SECONDS
        )
        if rarely:
            self._looked_rarely_at = at
        if announced is None:
            groups = [self._each_round]
        else:
            self._round = (self._round + 1) % len(self._slices)
            groups = [self._slices[self._round], self._each_round]
        if rarely:
            groups.append(self._rare)
        self._groups = groups
        once_more = [each for each in self._once_more if self._candidates.get(each.beam.row.key) is each]
        self._once_more = []
        for candidates in once_more:
            _look_into(candidates)
        expected = dict.fromkeys(once_more + self._expected(announced.paths if announced is not None else ()))
        self._told = expected.keys()
        turn = dict.fromkeys(candidates for group in groups for candidates in group.open) | expected
        return DueLogs(list(turn), _settled(groups), True, watched, distrusted)

    def _renew(self) -> set[BeamKey]:
        """Take the beams that the store has now."""
        watched = self._store.watched_beams(self._source)
        keys = {beam.row.key for beam in watched}
        for key in [key for key in self._candidates if key not in keys]:
            del self._candidates[key]
        for beam in watched:
            self._candidates_of(beam)
        self._by_path = {}
        for candidates in self._candidates.values():
            for path in candidates.paths:
                self._by_path[path] = (*self._by_path.get(path, ()), candidates)
        if self._watcher is not None:
            folders = {os.path.dirname(path) for path in self._by_path}
            self._watcher.forget_all_but(folders | self._listed_folders, self._by_path)
        self._regroup = True
        return keys

    def _group(self) -> None:
        """Who is looked at when."""
        self._regroup = False
        before = [self._each_round, self._rare, *self._slices]
        self._each_round, self._rare = _Group(), _Group()
        self._slices = [_Group() for _ in range(self._rounds_per_announced_log)]
        slices = itertools.cycle(self._slices)
        for candidates in self._candidates.values():
            if candidates.announced:
                next(slices).take(candidates)
            elif candidates.beam.rarely:
                self._rare.take(candidates)
            else:
                self._each_round.take(candidates)
        for group in before:
            # Groups and candidates hold each other, and garbage in circles is seldom looked for.
            group.open.clear()

    def _distrust_the_silent(self) -> set[str]:
        """A log was found changed in its turn, and until now nobody has announced it: its folder is not announced."""
        folders = {os.path.dirname(path) for path in self._unannounced}
        self._unannounced.clear()
        for folder in folders:
            assert self._watcher is not None
            self._watcher.distrust(folder)
        if folders:
            self._regroup = True
            for candidates in self._candidates.values():
                if any(os.path.dirname(path) in folders for path in candidates.paths):
                    candidates.announced = False
        return folders

    def _see_whether_announced(self, candidates: Candidates, there: list[tuple[str, LogStat]]) -> None:
        identities = tuple(stat.identity for _, stat in there)
        watcher = self._watcher
        if watcher is None or candidates.identities == identities:
            return
        candidates.identities = identities
        announced = all(watcher.watch_folder(os.path.dirname(path)) for path in candidates.paths) and all(
            plain_file(path) and watcher.watch_log(path) for path, _ in there
        )
        if announced:
            # What was written before the watch began was not announced.
            self._once_more.append(candidates)
        if announced is not candidates.announced:
            candidates.announced = announced
            self._regroup = True

    def _candidates_of(self, beam: WatchedBeam) -> None:
        row = beam.row
        row_fields = (row.beam_path, row.hpc_job_id, row.log_path)
        known = self._candidates.get(row.key)
        if known is not None and known.row_fields == row_fields:
            known.beam = beam
            _look_into(known)
            return
        if row.log_path is not None:
            paths = [row.log_path]
        else:
            rendered = (self._render(template, row) for template in self._templates)
            paths = list(dict.fromkeys(path for path in rendered if path is not None))
        there = known.there if known is not None else None
        self._candidates[row.key] = Candidates(beam, row_fields, tuple(paths), there)

    def _render(self, template: LogPathTemplate, row: BeamRow) -> str | None:
        fields = {
            "case_id": row.key.case_id,
            "beam_id": row.key.beam_id,
            "beam_path": row.beam_path,
            "hpc_job_id": row.hpc_job_id,
        }
        try:
            return template.render(fields)
        except LogPathError as error:
            self._store.count_refused({"log_path": 1})
            _log.warning(
                "log path refused",
                case=self._identifiers.case(row.key.case_id),
                beam=self._identifiers.beam(row.key.beam_id),
                source=self._source,
                # It speaks of the template and of fields by name, never of what they hold.
                error=SafeText(error),
            )
            return None


def _look_into(candidates: Candidates) -> None:
    """Have a beam's logs looked into when it is its turn."""
    if candidates.group is not None:
        candidates.group.unsettle(candidates)


def _later(one: float | None, other: float | None) -> float | None:
    """The later of two moments that may not be known."""
    return max((each for each in (one, other) if each is not None), default=None)


def _settled(groups: Iterable[_Group]) -> Mapping[str, LogStat]:
    """The settled logs of all groups."""
    each = [group.settled for group in groups if group.settled]
    if len(each) < 2:  # the usual case: ten thousand need not be copied
        return each[0] if each else NO_KNOWN_STATS
    return {path: stat for settled in each for path, stat in settled.items()}
