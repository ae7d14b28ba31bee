"""The output check: whether the dose file of a run that claims success is there. Rules only; no I/O, no clock.

A run claims success by its log, or by its row if the log does not show its end. With ``output_path`` configured for its
source, the beam has succeeded when the dose file is found. It has failed (``output_missing``) when a search
:data:`GRACE_SECONDS` after the claim does not find it. A search that is impossible (the source is down, the folder
cannot be listed) decides nothing. A file that appears later still turns the beam to ``succeeded``: searches go on every
:data:`LATE_INTERVAL_SECONDS`, for :data:`LATE_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from exporter.beams.run import BeamRun
from exporter.beams.snapshot import OutputFile, OutputState
from exporter.process.clock import Timeline

GRACE_SECONDS = 30.0
"""How long after the claim a missing file is not a failure yet: some file systems show new files late."""

LATE_INTERVAL_SECONDS = 60.0
LATE_SECONDS = 3600.0

_SEARCH_AFTER_SECONDS = (0.0, 1.0, 3.0, 7.0, 15.0, GRACE_SECONDS)
"""When to search, counted from the claim. A folder may hold 100 000 files, so it is not listed in each poll."""

_TOLERANCE_SECONDS = 2.0
"""File systems round time stamps to up to two seconds."""

_LEAST_OFFSET_SECONDS = 2.0
"""A smaller offset may only be the rounding of time stamps, or the time between two polls."""

_SKEW_TOLERANCE_SECONDS = 10.0
"""An offset learned from one log is only as exact as the time between two polls."""

_UNSEEN_START_SECONDS = 60.0
"""A block-buffered log may show a run as unfinished for this long after its dose was written."""

_UNSEEN_RUN_SECONDS = 3600.0
"""For a run that had ended when its log was first read, a file written this long before the end still counts. An engine
writes the dose just before it ends, but a copied log carries a later date."""


_OPEN = frozenset({OutputState.PENDING, OutputState.BLOCKED, OutputState.MISSING})


@dataclass(frozen=True, slots=True)
class OutputSearchResult:
    """Result of one search for the dose file of a run.

    Args:
        file: the file; ``None`` if there was none.
        problem: why the search was impossible (a kind of :class:`~exporter.sources.source.LogProblem`), else ``None``.
    """

    file: OutputFile | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _LastSearch:
    """The last search of one source: when, and why it was impossible."""

    at: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """The output check of one run. It is immutable: each method returns the next value.

    Args:
        state: the state; ``NOT_CONFIGURED`` depends on the configuration and is added by :meth:`state_for`.
        run_after: when the last poll began that did not show the run yet; ``None`` without one.
        clock_offset_seconds: how much later the source dates its files than our clock says.
        claimed_at: when the run claimed success.
        found_at: when the file was found.
        looks: the last search of each source.
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
        """Return the state under a configuration.

        Args:
            source: source of the beam's log; ``None`` without a log.
            configured: sources with ``output_path``.
        """
        return self.state if checking_sources(source, configured) else OutputState.NOT_CONFIGURED

    def with_log_time(self, file_time: float, at: float) -> OutputCheck:
        """Learn the source's clock offset from a log whose end was just read; ignored after the claim.

        Args:
            file_time: the log's time stamp when it showed the run's end.
            at: wall-clock time at which that was written, as far as known.
        """
        offset = file_time - at
        if self.claimed_at is not None or abs(offset) < _LEAST_OFFSET_SECONDS:
            return self
        return replace(self, clock_offset_seconds=offset)

    def with_clock_offset(self, clock_offset_seconds: float) -> OutputCheck:
        """Set how much later the source dates its files than our clock says, as learned from all its logs."""
        known = clock_offset_seconds if abs(clock_offset_seconds) >= _LEAST_OFFSET_SECONDS else 0.0
        return self if known == self.clock_offset_seconds else replace(self, clock_offset_seconds=known)

    def claim(self, at: float, *, ended_at: float, watched: bool, skip_before: float) -> OutputCheck:
        """Start the check of a run that claims success.

        Args:
            at: the present instant.
            ended_at: when the run ended, as far as known.
            watched: its log was read before it had ended.
            skip_before: runs that ended before this instant and were not watched are not checked.
        """
        if self.state is not OutputState.NOT_DUE:
            return self
        if not watched and ended_at < skip_before:
            return replace(self, state=OutputState.SKIPPED)
        return replace(self, state=OutputState.PENDING, claimed_at=at)

    def withdraw(self) -> OutputCheck:
        """End the check of a run that does not claim success any more."""
        if self.state not in _OPEN:
            return self
        return replace(self, state=OutputState.NOT_DUE, claimed_at=None, looks={})

    def skip(self) -> OutputCheck:
        """Skip the check of a run that was shown as succeeded before the check was configured."""
        return replace(self, state=OutputState.SKIPPED) if self.state is OutputState.NOT_DUE else self

    def record_search(
        self, source: str, result: OutputSearchResult, at: float, sources: Collection[str]
    ) -> OutputCheck:
        """Record one search.

        Args:
            source: the source that made it.
            result: its result.
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
        """Return when ``source`` should search next; ``None`` if it should not."""
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
        """When the file was found, if that was after the grace; ``None`` otherwise."""
        if self.found_at is None or self.claimed_at is None or self.found_at <= self.missing_since:
            return None
        return self.found_at

    @property
    def problem(self) -> str | None:
        """Why the file cannot be searched for; ``None`` if it can."""
        if self.state is not OutputState.BLOCKED:
            return None
        return next((each.problem for each in self.looks.values() if each.problem is not None), None)

    def written_after(self, run: BeamRun, row_ended_at: float | None, timeline: Timeline) -> float | None:
        """Return the earliest time at which a dose file of the run can have been written.

        Args:
            run: the run.
            row_ended_at: when its row became terminal, for a run whose log does not show its end.
            timeline: converts instants to wall-clock times.

        Returns:
            Epoch seconds by the source's clock; ``None`` while unknown.
        """
        began = self._began_at(run, row_ended_at)
        if began is None:
            return None
        tolerance = _TOLERANCE_SECONDS + (_SKEW_TOLERANCE_SECONDS if self.clock_offset_seconds else 0.0)
        return timeline.to_wall(began) + self.clock_offset_seconds - tolerance

    def _began_at(self, run: BeamRun, row_ended_at: float | None) -> float | None:
        """Return an instant at which the run had not begun yet, or just began."""
        if run.started_at is not None:
            if self.run_after is not None:
                # A short run may be read at once: its log is then dated at its end, after its dose.
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
    """Return the sources that search for the dose file of a beam: that of its log, or all without a log.

    Args:
        source: source of the beam's log; ``None`` without a log.
        configured: sources with ``output_path``.
    """
    if source is None:
        return tuple(sorted(configured))
    return (source,) if source in configured else ()
