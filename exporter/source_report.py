"""What has become of a source's looks: counted for its metrics, and what is wrong said once in the log.

Whoever looks at the source tells; nothing here decides what is done about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import structlog

from exporter.beams.snapshot import BeamKey, SourceView, Summary
from exporter.logs.source import LogProblem, LogSource, SourceUnavailable
from exporter.privacy.identifiers import Identifiers

_log = structlog.get_logger(__name__)

_UNEXPECTED = "unexpected"


class SourceReport:
    """How a source is, and what it has done. Used by one thread.

    Args:
        source: it.
        identifiers: how ids are shown in log lines.
        count_error: told ``monitor`` when something unexpected was survived.
    """

    def __init__(self, source: LogSource, identifiers: Identifiers, count_error: Callable[[str], None]) -> None:
        self._source = source
        self._identifiers = identifiers
        self._count_error = count_error
        self._up: bool | None = None
        self._trouble: SourceUnavailable | None = None
        self._problems: dict[str, str] = {}
        self._errors: Counter[str] = Counter()
        self._poll_seconds = Summary()
        self._read_bytes = 0
        # What the source had done before a reload made it anew.
        self._reconnects_before = 0
        self._round_trips_before = 0

    def adopt(self, other: SourceReport) -> None:
        """Go on where ``other`` (of the same source before a reload) stopped."""
        self._up = other._up
        self._problems = other._problems
        self._errors = other._errors
        self._poll_seconds = other._poll_seconds
        self._read_bytes = other._read_bytes
        self._reconnects_before = other._reconnects_before + other._source.reconnects
        self._round_trips_before = other._round_trips_before + other._source.round_trips

    def view(self, last_poll_at: float | None) -> SourceView:
        """The source as readers see it; what did not fit in its logs the board knows."""
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
        )

    # Its looks

    def looked(self, seconds: float) -> None:
        """A look has taken so long."""
        self._poll_seconds = self._poll_seconds.plus(seconds)

    def has_read(self, size_bytes: int) -> None:
        """So many bytes of logs were new."""
        self._read_bytes += size_bytes

    def answers(self) -> None:
        """It has been looked at."""
        if self._up is not True:
            _log.info("source up", source=self._source.name, kind=self._source.kind)
            self._up = True

    def is_down(self, problem: SourceUnavailable) -> None:
        """It could not be looked at."""
        # One that is being left alone for a while answers with the trouble it had.
        if problem is not self._trouble:
            self._trouble = problem
            self._errors[problem.kind] += 1
        if self._up is not False:
            error = self._identifiers.problem(problem)
            _log.warning("source down", source=self._source.name, kind=self._source.kind, error=error)
            self._up = False

    def distrusted(self, folder: str) -> None:
        """A log in a folder has changed, and the kernel has not announced it."""
        self._errors["notification"] += 1
        _log.warning(
            "the kernel did not announce a change, the folder is polled from now on",
            source=self._source.name,
            folder=self._identifiers.path(folder),
        )

    # Its logs

    def cannot_read(self, key: BeamKey, path: str, problem: LogProblem) -> None:
        """A beam's log cannot be read; said once, until it can be."""
        if self._problems.get(path) != problem.kind:
            self._problems[path] = problem.kind
            self._errors[problem.kind] += 1
            _log.warning("log cannot be read", **self._about(key), error=self._identifiers.problem(problem))

    def stumbled(self, key: BeamKey, path: str) -> None:
        """Taking what a log says has raised; called while that is handled. Each time is counted, the first one said."""
        self._count_error("monitor")
        if self._problems.get(path) != _UNEXPECTED:
            self._problems[path] = _UNEXPECTED
            _log.exception("unexpected error with a log", **self._about(key))

    def is_there(self, path: str) -> None:
        """A log can be looked at: what is wrong with it from now on is said again."""
        self._problems.pop(path, None)

    def has_problem(self, path: str) -> bool:
        """Whether something is wrong with a log."""
        return path in self._problems

    def _about(self, key: BeamKey) -> dict[str, str]:
        return {
            "case": self._identifiers.case(key.case_id),
            "beam": self._identifiers.beam(key.beam_id),
            "source": self._source.name,
        }
