"""What has become of a source's looks: counted for its metrics, and what is wrong said once in the log.

Whoever looks at the source tells; nothing here decides what is done about it.
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
    """How a source is, and what it has done. Used by one thread.

    Args:
        source: it.
        count_error: told ``monitor`` when an unexpected error with one log was survived, and ``source NAME`` when it
            was with the whole source.
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
        # What the source had done before a reload made it anew.
        self._reconnects_before = 0
        self._round_trips_before = 0

    def adopt(self, other: PollStats) -> None:
        """Go on where ``other`` (of the same source before a reload) stopped."""
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
        """The source as readers see it; what did not fit in its logs the store knows.

        Args:
            last_poll_at: when its last whole round began, epoch seconds.
            folders_missing: folders of ``log_path`` that do not exist, if they have been looked for.
            log_places: at how many places each log is looked for.
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

    # Its looks

    def looked(self, seconds: float) -> None:
        """A look has taken so long."""
        self._poll_seconds = self._poll_seconds.plus(seconds)

    def has_read(self, size_bytes: int) -> None:
        """So many bytes of logs were new."""
        self._read_bytes += size_bytes

    def answers(self) -> None:
        """The source has been polled."""
        if self._up is not True:
            _log.info("source up", source=self._source.name, kind=self._source.kind)
            self._up = True
        self._problem = self._unexpected = None

    def is_down(self, problem: SourceUnavailable) -> None:
        """The source could not be polled.

        Args:
            problem: why; the same object while the source is left alone after a failure, which counts once.
        """
        if problem is not self._trouble:
            self._trouble = problem
            self._errors[problem.kind] += 1
            if isinstance(problem, UnexpectedError):
                self._count_error(f"source {self._source.name}")
        if isinstance(problem, UnexpectedError):
            # Also where the source was down already: this is another reason, and a fault of the exporter itself.
            if self._unexpected != str(problem):
                self._unexpected = str(problem)
                about = {"source": self._source.name, "kind": self._source.kind, "error": problem}
                _log.error("unexpected error, source down", **about, exc_info=problem.__cause__)
        elif self._up is not False:
            _log.warning("source down", source=self._source.name, kind=self._source.kind, error=problem)
        self._up = False
        self._problem = problem

    def folders_changed(self, change: FolderChange) -> None:
        """Folders of ``log_path`` have gone or come; each is worth one line."""
        for folder in change.lost:
            _log.warning(
                "folder of log_path does not exist, no log can be found there; check log_path, or create the folder",
                source=self._source.name,
                folder=folder,
            )
        for folder in change.found:
            _log.info("folder of log_path exists now", source=self._source.name, folder=folder)

    def forget_all_but(self, keys: Collection[BeamKey]) -> None:
        """Only these beams are watched."""
        for key in [key for key in self._output_problems if key not in keys]:
            del self._output_problems[key]

    # Its clock

    @property
    def clock_offset_seconds(self) -> float | None:
        """How much later its files are dated than our clock says; ``None`` while that is not known."""
        return self._clock_offset_seconds

    def has_clock_offset(self, seconds: float | None) -> None:
        """Its files are dated so much later than our clock says; ``None`` where that is not known.

        Said once when it is more than a few seconds, until it is less again.
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

    # Its logs

    def cannot_read(self, key: BeamKey, path: str, problem: LogProblem) -> None:
        """A beam's log cannot be read; said once, until it can be."""
        if self._problems.get(path) != problem.kind:
            self._problems[path] = problem.kind
            self._errors[problem.kind] += 1
            _log.warning("log cannot be read", **self._about(key), error=problem)

    def stumbled(self, key: BeamKey, path: str) -> None:
        """Taking what a log says has raised; called while that is handled. Each time is counted, the first one said."""
        self._count_error("monitor")
        if self._problems.get(path) != _UNEXPECTED:
            self._problems[path] = _UNEXPECTED
            _log.exception("unexpected error with a log", **self._about(key))

    def is_there(self, path: str) -> None:
        """A log can be looked at: what is wrong with it from now on is said again."""
        self._problems.pop(path, None)

    # Dose files

    def cannot_check_output(self, key: BeamKey, problem: LogProblem) -> None:
        """Whether a beam's dose file is there cannot be told; said once, until it can be."""
        if self._output_problems.get(key) != problem.kind:
            self._output_problems[key] = problem.kind
            self._errors[problem.kind] += 1
            _log.warning("dose file cannot be looked for", **self._about(key), error=problem)

    def output_is_there(self, key: BeamKey) -> None:
        """A beam's dose file was found."""
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
