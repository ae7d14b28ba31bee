"""Health and clock of the sources, as readers see them and as the states of beams depend on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from exporter.beams.snapshot import SourceView
from exporter.process.clock import Timeline


@dataclass(frozen=True, slots=True)
class SourceState:
    """Health and clock of one source.

    Args:
        down_since: since when it does not answer; ``None`` while it answers.
        last_poll_at: when it was polled last.
        clock_offset_seconds: how much later it dates its files than our clock says; ``None`` while that is not known.
        clock_steps: how often our clock had been set when the offset was learned.
    """

    down_since: float | None = None
    last_poll_at: float | None = None
    clock_offset_seconds: float | None = None
    clock_steps: int = 0

    def polled_since(self, at: float | None) -> bool:
        """Whether it was polled after an instant; false for an unknown instant."""
        return at is not None and self.last_poll_at is not None and self.last_poll_at > at


_NO_SOURCE = SourceState()


class Sources:
    """All sources. Not thread-safe: the store uses it under its lock."""

    NOT_SAVED = frozenset({"_views", "_expected", "_everywhere"})
    """The counts of a process begin at 0, and the configuration names the sources."""

    def __init__(self) -> None:
        self._views: dict[str, SourceView] = {}
        self._source_states: dict[str, SourceState] = {}
        self._expected: dict[str, str] = {}
        self._everywhere = _NO_SOURCE

    def add(self, name: str, kind: str) -> None:
        """Add a source of this name and kind, which has not been polled yet."""
        self._expected[name] = kind
        self._changed()

    def state(self, name: str | None) -> SourceState:
        """Return the health of a source.

        Args:
            name: the source; ``None`` for all together. They are down if one is, and polled when the last one was.
        """
        return self._everywhere if name is None else self._source_states.get(name, _NO_SOURCE)

    def clock_offset_seconds(self, name: str, timeline: Timeline) -> float | None:
        """Return how much later a source's files are dated than our clock says.

        Args:
            name: the source.
            timeline: knows how often our clock was set.

        Returns:
            Seconds; ``None`` while that is not known, as after our clock was set.
        """
        state = self.state(name)
        return state.clock_offset_seconds if state.clock_steps == timeline.clock_steps else None

    def views(self, anomalies: Mapping[str, Mapping[str, int]], timeline: Timeline) -> tuple[SourceView, ...]:
        """Return all sources as readers see them.

        Args:
            anomalies: counts of unexpected lines, by source.
            timeline: converts instants to wall-clock times.
        """
        unpolled = (
            SourceView(name, kind, last_poll_at=self.state(name).last_poll_at)
            for name, kind in self._expected.items()
            if name not in self._views
        )
        return tuple(
            _shown(view, anomalies.get(view.name, {}), timeline) for view in (*self._views.values(), *unpolled)
        )

    def update(self, view: SourceView, at: float) -> None:
        """Update a source after a poll that ended at an instant."""
        self._views[view.name] = view
        before = self.state(view.name)
        down_since = (before.down_since or at) if view.up is False else None
        self._source_states[view.name] = replace(before, down_since=down_since, last_poll_at=view.last_poll_at)
        self._changed()

    def set_clock_offset(self, name: str, seconds: float | None, clock_steps: int) -> None:
        """Record how a source dates its files.

        Args:
            name: the source.
            seconds: how much later than our clock says; ``None`` while that is not known.
            clock_steps: how often our clock had been set when that was learned.
        """
        self._source_states[name] = replace(self.state(name), clock_offset_seconds=seconds, clock_steps=clock_steps)

    def remove(self, name: str) -> None:
        """Remove a source that has left the configuration."""
        self._views.pop(name, None)
        self._source_states.pop(name, None)
        self._expected.pop(name, None)
        self._changed()

    def _changed(self) -> None:
        """Compute the health of all together once, since thousands of beams without a log ask for it."""
        states = [self.state(name) for name in self._expected.keys() | self._source_states.keys()]
        down = [each.down_since for each in states if each.down_since is not None]
        polls = [each.last_poll_at for each in states if each.last_poll_at is not None]
        all_polled = states and len(polls) == len(states)
        self._everywhere = SourceState(min(down, default=None), min(polls) if all_polled else None)

    def to_state(self) -> dict[str, SourceState]:
        """Return the health of each source, by name, as it is saved."""
        return dict(self._source_states)

    def resume(self, states: Mapping[str, SourceState], names: Collection[str]) -> None:
        """Restore the health that an earlier process saved, for the sources in ``names``."""
        self._source_states = {name: each for name, each in states.items() if name in names}
        self._changed()


def _shown(view: SourceView, anomalies: Mapping[str, int], timeline: Timeline) -> SourceView:
    both = Counter(view.anomalies)
    both.update(anomalies)
    last_poll_at = None if view.last_poll_at is None else timeline.to_wall(view.last_poll_at)
    return replace(view, anomalies=dict(both), last_poll_at=last_poll_at)
