"""Counts the polls of a source for its metrics, and logs each problem once.

The poller reports to it. It decides nothing about what is done next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

import structlog

from exporter.beams.snapshot import BeamKey, SourceView, Summary
from exporter.sources.missing_folders import FolderChange
from exporter.sources.source import LogProblem, LogSource, SourceUnavailable, UnexpectedError

_log = structlog.get_logger(__name__)

_UNEXPECTED = "unexpected"

CLOCK_WARNING_SECONDS = 5.0
"""Warn when a source's clock differs from ours by more than this, in seconds."""


class PollStats:
    """Health and counters of one source. Used by one thread.

    Args:
        source: the source.
        count_error: called with ``monitor`` after an unexpected error with one log, and with ``source NAME`` after one
            with the whole source.
    """

    def __init__(self, source: LogSource, count_error: Callable[[str], None]) -> None:
        self._source = source
        self._count_error = count_error
        self._up: bool | None = None
        self._trouble: SourceUnavailable | None = None
        self._problem: SourceUnavailable | None = None
        self._unexpected: str | None = None
        self._problems: dict[str, str] = {}
        self._output_problems: dict[BeamKey, str] = {}
        self._errors: Counter[str] = Counter()
        self._poll_seconds = Summary()
        self._read_bytes = 0
        self._clock_offset_seconds: float | None = None
        self._clock_is_off = False
        # Counted by the source object before the last reload.
        self._reconnects_before = 0
        self._round_trips_before = 0

    def adopt(self, other: PollStats) -> None:
        """Continue with the counters of ``other``, of the same source before a reload."""
        self._up = other._up
        self._problem = other._problem
        self._unexpected = other._unexpected
        self._problems = other._problems
        self._output_problems = other._output_problems
        self._errors = other._errors
        self._poll_seconds = other._poll_seconds
        self._read_bytes = other._read_bytes
        self._clock_offset_seconds = other._clock_offset_seconds
        self._clock_is_off = other._clock_is_off
        self._reconnects_before = other._reconnects_before + other._source.reconnects
        self._round_trips_before = other._round_trips_before + other._source.round_trips

    def view(
        self, last_poll_at: float | None, folders_missing: tuple[str, ...] | None = None, log_places: int = 0
    ) -> SourceView:
        """Return the source's health and counters, for readers.

        Args:
            last_poll_at: when the last poll of due logs began; ``None`` before the first.
            folders_missing: folders of ``log_path`` that do not exist; ``None`` before the first check.
            log_places: number of log path templates.
        """
        return SourceView(
            self._source.name,
            self._source.kind,
            self._up,
            last_poll_at,
            self._poll_seconds,
            self._reconnects_before + self._source.reconnects,
            self._round_trips_before + self._source.round_trips,
            self._read_bytes,
            dict(self._errors),
            problem=self._problem,
            folders_missing=folders_missing,
            clock_offset_seconds=self._clock_offset_seconds,
            log_places=log_places,
        )

    # Polls

    def record_poll(self, seconds: float) -> None:
        """Record a poll that took so long."""
        self._poll_seconds = self._poll_seconds.plus(seconds)

    def count_read(self, size_bytes: int) -> None:
        """Count new bytes of logs."""
        self._read_bytes += size_bytes

    def set_up(self) -> None:
        """Record that the source has answered."""
        if self._up is not True:
            _log.info("source up", source=self._source.name, kind=self._source.kind)
            self._up = True
        self._problem = self._unexpected = None

    def set_down(self, problem: SourceUnavailable) -> None:
        """Record that the source could not be polled.

        Args:
            problem: the reason; the same object during a backoff, which counts once.
        """
        if problem is not self._trouble:
            self._trouble = problem
            self._errors[problem.kind] += 1
            if isinstance(problem, UnexpectedError):
                self._count_error(f"source {self._source.name}")
        if isinstance(problem, UnexpectedError):
            # Also if the source was down already: this reason is a fault of the exporter itself.
            if self._unexpected != str(problem):
                self._unexpected = str(problem)
                about = {"source": self._source.name, "kind": self._source.kind, "error": problem}
                _log.error("unexpected error, source down", **about, exc_info=problem.__cause__)
        elif self._up is not False:
            _log.warning("source down", source=self._source.name, kind=self._source.kind, error=problem)
        self._up = False
        self._problem = problem

    def log_folder_change(self, change: FolderChange) -> None:
        """Log each folder of ``log_path`` that is missing now, or exists again."""
        for folder in change.lost:
            _log.warning(
                "folder of log_path does not exist, no log can be found there; check log_path, or create the folder",
                source=self._source.name,
                folder=folder,
            )
        for folder in change.found:
            _log.info("folder of log_path exists now", source=self._source.name, folder=folder)

    def keep_only(self, keys: Collection[BeamKey]) -> None:
        """Forget all other beams."""
        for key in [key for key in self._output_problems if key not in keys]:
            del self._output_problems[key]

    # Clock of the source

    @property
    def clock_offset_seconds(self) -> float | None:
        """The time stamps of the source's files minus our clock, in seconds; ``None`` if unknown."""
        return self._clock_offset_seconds

    def set_clock_offset(self, seconds: float | None) -> None:
        """Set the clock offset, and log once if it is large.

        Args:
            seconds: time stamps of the source's files minus our clock; ``None`` if unknown.
        """
        self._clock_offset_seconds = seconds
        if seconds is None:
            return
        off = abs(seconds) > CLOCK_WARNING_SECONDS
        if off and not self._clock_is_off:
            _log.warning(
                "the clock that dates the logs of this source is off, all its dates are corrected; synchronise it",
                source=self._source.name,
                offset_seconds=round(seconds, 1),
                clock="ahead" if seconds > 0 else "behind",
            )
        elif self._clock_is_off and not off:
            _log.info("the clock of the source is right again", source=self._source.name)
        self._clock_is_off = off

    # Logs

    def log_problem(self, key: BeamKey, path: str, problem: LogProblem) -> None:
        """Log once that a beam's log cannot be read, until it can be."""
        if self._problems.get(path) != problem.kind:
            self._problems[path] = problem.kind
            self._errors[problem.kind] += 1
            _log.warning("log cannot be read", **self._about(key), error=problem)

    def log_unexpected_error(self, key: BeamKey, path: str) -> None:
        """Count an unexpected exception with a log, and log the first; called in its ``except`` block."""
        self._count_error("monitor")
        if self._problems.get(path) != _UNEXPECTED:
            self._problems[path] = _UNEXPECTED
            _log.exception("unexpected error with a log", **self._about(key))

    def clear_problem(self, path: str) -> None:
        """Note that nothing is wrong with a log now: the next problem is logged again."""
        self._problems.pop(path, None)

    # Dose files

    def log_output_problem(self, key: BeamKey, problem: LogProblem) -> None:
        """Log once that the search for a beam's dose file failed, until it works."""
        if self._output_problems.get(key) != problem.kind:
            self._output_problems[key] = problem.kind
            self._errors[problem.kind] += 1
            _log.warning("dose file cannot be looked for", **self._about(key), error=problem)

    def clear_output_problem(self, key: BeamKey) -> None:
        """Note that a beam's dose file was found: the next problem is logged again."""
        self._output_problems.pop(key, None)

    def problem(self, path: str) -> str | None:
        """Return the kind of what is wrong with a log; ``None`` if nothing is."""
        return self._problems.get(path)

    def _about(self, key: BeamKey) -> dict[str, str]:
        return {
            "case": key.case_id,
            "beam": key.beam_id,
            "source": self._source.name,
        }
