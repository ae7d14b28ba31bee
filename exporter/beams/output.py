"""The output check: whether the dose file of a run that claims success is there. Rules only; no I/O, no clock.

A run claims success by its log, or by its row where the log does not tell its end. With ``output_path`` configured for
its source, the beam has succeeded when the dose file has been found, and has failed (``output_missing``) when the
source was asked :data:`GRACE_SECONDS` after the claim and did not find it. Who cannot ask (the source is down, the
folder may not be listed) decides nothing. A file that appears later still turns the beam to ``succeeded``: it is looked
for every :data:`LATE_INTERVAL_SECONDS`, for :data:`LATE_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from exporter.beams.run import BeamRun
from exporter.beams.snapshot import OutputFile, OutputState
from exporter.process.clock import Timeline

GRACE_SECONDS = 30.0
"""So long after the claim a missing file is no failure: some file systems show a new file late."""

LATE_INTERVAL_SECONDS = 60.0
LATE_SECONDS = 3600.0

_SEARCH_AFTER_SECONDS = (0.0, 1.0, 3.0, 7.0, 15.0, GRACE_SECONDS)
"""When to look, counted from the claim: a folder may hold 100 000 files, and is not listed in each poll."""

_TOLERANCE_SECONDS = 2.0
"""File systems round time stamps to up to two seconds."""

_LEAST_OFFSET_SECONDS = 2.0
"""Time stamps of whole seconds, and the time between two polls, look like a smaller difference."""

_SKEW_TOLERANCE_SECONDS = 10.0
"""A clock offset that one log has shown is only as exact as the time between two polls of it."""

_UNSEEN_START_SECONDS = 60.0
"""A log that arrives in blocks may show a run as unfinished for so long after its dose was written."""

_UNSEEN_RUN_SECONDS = 3600.0
"""Of a run that had ended when its log was first read, a file that was written so long before the end counts as its
own: an engine writes the dose just before it ends, but a log that was copied carries a later date."""


_OPEN = frozenset({OutputState.PENDING, OutputState.BLOCKED, OutputState.MISSING})


@dataclass(frozen=True, slots=True)
class OutputSearchResult:
    """What one look for the file of a run has shown.

    Args:
        file: the file; ``None`` where there was none.
        problem: why the source could not tell (a kind of :class:`~exporter.sources.source.LogProblem`), else ``None``.
    """

    file: OutputFile | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _LastSearch:
    """The last look of one source: when, and why it could not tell."""

    at: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """The output check of one run; each method returns the next value. Instants are epoch seconds.

    Args:
        state: what is known, but for ``NOT_CONFIGURED``, which the configuration tells (:meth:`state_for`).
        run_after: the run had not begun then: the poll before the first that showed it; ``None`` where none did.
        clock_offset_seconds: how far the source's file times were ahead of ours when the log told its end.
        claimed_at: when the claim of success was met.
        found_at: when the file was found.
        looks: the last look of each source.
        file: the file that was found.
    """

    state: OutputState = OutputState.NOT_DUE
    run_after: float | None = None
    clock_offset_seconds: float = 0.0
    claimed_at: float | None = None
    found_at: float | None = None
    looks: Mapping[str, _LastSearch] = field(default_factory=dict)
    file: OutputFile | None = None

    def state_for(self, source: str | None, configured: Collection[str]) -> OutputState:
        """The state, given which sources check.

        Args:
            source: where the beam's log is; ``None`` where none was found.
            configured: sources with ``output_path``.
        """
        return self.state if checking_sources(source, configured) else OutputState.NOT_CONFIGURED

    def with_log_time(self, file_time: float, at: float) -> OutputCheck:
        """Note how the source's file times differ from our clock; before the claim only.

        Args:
            file_time: the log's time stamp when it told the run's end.
            at: when that was by our clock, as well as that is known.
        """
        offset = file_time - at
        if self.claimed_at is not None or abs(offset) < _LEAST_OFFSET_SECONDS:
            return self
        return replace(self, clock_offset_seconds=offset)

    def with_clock_offset(self, clock_offset_seconds: float) -> OutputCheck:
        """Note how the source's file times differ from our clock, as was learned from all its logs."""
        known = clock_offset_seconds if abs(clock_offset_seconds) >= _LEAST_OFFSET_SECONDS else 0.0
        return self if known == self.clock_offset_seconds else replace(self, clock_offset_seconds=known)

    def claim(self, at: float, *, ended_at: float, watched: bool, skip_before: float) -> OutputCheck:
        """The run claims success.

        Args:
            at: now.
            ended_at: when it ended, as far as known.
            watched: its log was read before it had ended.
            skip_before: runs that ended earlier and were not watched are not checked.
        """
        if self.state is not OutputState.NOT_DUE:
            return self
        if not watched and ended_at < skip_before:
            return replace(self, state=OutputState.SKIPPED)
        return replace(self, state=OutputState.PENDING, claimed_at=at)

    def withdraw(self) -> OutputCheck:
        """The run does not claim success any more."""
        if self.state not in _OPEN:
            return self
        return replace(self, state=OutputState.NOT_DUE, claimed_at=None, looks={})

    def skip(self) -> OutputCheck:
        """The run was shown as done before there was a check."""
        return replace(self, state=OutputState.SKIPPED) if self.state is OutputState.NOT_DUE else self

    def record_search(
        self, source: str, result: OutputSearchResult, at: float, sources: Collection[str]
    ) -> OutputCheck:
        """One source has looked.

        Args:
            source: its name.
            result: what it has shown.
            at: when.
            sources: all sources that check this beam.
        """
        if self.state not in _OPEN or self.claimed_at is None:
            return self
        if result.file is not None:
            return replace(self, state=OutputState.FOUND, found_at=at, file=result.file, looks={})
        looks = {**self.looks, source: _LastSearch(at, result.problem)}
        if self.state is OutputState.MISSING:
            return replace(self, looks=looks)
        last = [looks.get(each) for each in sources]
        if any(each is not None and each.problem is not None for each in last):
            state = OutputState.BLOCKED
        elif all(each is not None and each.at >= self.claimed_at + GRACE_SECONDS for each in last):
            state = OutputState.MISSING
        else:
            state = OutputState.PENDING
        return replace(self, state=state, looks=looks)

    def due_at(self, source: str) -> float | None:
        """When ``source`` should look next; ``None`` for not at all."""
        if self.state not in _OPEN or self.claimed_at is None:
            return None
        last = self.looks.get(source)
        since = -1.0 if last is None else last.at - self.claimed_at
        for after in _SEARCH_AFTER_SECONDS:
            if after > since:
                return self.claimed_at + after
        next_at = self.claimed_at + since + LATE_INTERVAL_SECONDS
        late = self.state is OutputState.MISSING and next_at > self.claimed_at + LATE_SECONDS
        return None if late else next_at

    @property
    def missing_since(self) -> float:
        """Since when the file has been missing."""
        return (self.claimed_at or 0.0) + GRACE_SECONDS

    @property
    def found_late_at(self) -> float | None:
        """When the file was found, where that was after the grace; ``None`` otherwise."""
        if self.found_at is None or self.claimed_at is None or self.found_at <= self.missing_since:
            return None
        return self.found_at

    @property
    def problem(self) -> str | None:
        """Why the file cannot be looked for; ``None`` where it can."""
        if self.state is not OutputState.BLOCKED:
            return None
        return next((each.problem for each in self.looks.values() if each.problem is not None), None)

    def written_after(self, run: BeamRun, row_ended_at: float | None, timeline: Timeline) -> float | None:
        """Files that were written earlier are of another run.

        Args:
            run: the run.
            row_ended_at: when its row says that it was over, for a run whose log does not tell its end.
            timeline: converts instants to wall-clock times.

        Returns:
            Epoch seconds by the source's clock; ``None`` where nothing is known.
        """
        began = self._began_at(run, row_ended_at)
        if began is None:
            return None
        tolerance = _TOLERANCE_SECONDS + (_SKEW_TOLERANCE_SECONDS if self.clock_offset_seconds else 0.0)
        return timeline.to_wall(began) + self.clock_offset_seconds - tolerance

    def _began_at(self, run: BeamRun, row_ended_at: float | None) -> float | None:
        """The run began then, or later; by our clock."""
        if run.started_at is not None:
            if self.run_after is not None:
                # A short run may be met whole: its log is then dated at its end, after its dose.
                return min(run.started_at, self.run_after)
            if run.start_seen:
                return run.started_at
            if run.ended_at is not None and run.ended_at > run.started_at:
                # It had not ended when its log was first read: its dose came later.
                return run.started_at - _UNSEEN_START_SECONDS
        ended_at = row_ended_at if run.ended_at is None else run.ended_at
        return None if ended_at is None else ended_at - _UNSEEN_RUN_SECONDS


NO_CHECK = OutputCheck()


def checking_sources(source: str | None, configured: Collection[str]) -> tuple[str, ...]:
    """Which sources look for the dose file of a beam: that of its log; without a log all that check.

    Args:
        source: where the beam's log is; ``None`` where none was found.
        configured: sources with ``output_path``.
    """
    if source is None:
        return tuple(sorted(configured))
    return (source,) if source in configured else ()
