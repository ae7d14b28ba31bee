"""How the sources are: what readers are shown of them, and what their beams' states depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from exporter.beams.snapshot import SourceView
from exporter.process.clock import Timeline


@dataclass(frozen=True, slots=True)
class SourceState:
    """What its beams must know of a source: whether it answers, and how its files are dated.

    Args:
        down_since: since when it does not answer; ``None`` while it does.
        last_poll_at: when it was polled last.
        clock_offset_seconds: how much later its files are dated than our clock says; ``None`` while that is not known.
        clock_steps: how often our clock had been set when the offset was learned.
    """

    down_since: float | None = None
    last_poll_at: float | None = None
    clock_offset_seconds: float | None = None
    clock_steps: int = 0

    def polled_since(self, moment: float | None) -> bool:
        """The source has been looked at after that moment; never after one that is not known."""
        return moment is not None and self.last_poll_at is not None and self.last_poll_at > moment


_NO_SOURCE = SourceState()


class Sources:
    """All sources. The store alone touches them, under its lock."""

    NOT_SAVED = frozenset({"_views", "_expected", "_everywhere"})
    """What a process has done begins at 0 with it; which sources there are the configuration says."""

    def __init__(self) -> None:
        self._views: dict[str, SourceView] = {}
        self._source_states: dict[str, SourceState] = {}
        self._expected: dict[str, str] = {}
        self._everywhere = _NO_SOURCE

    def expect(self, name: str, kind: str) -> None:
        """There is a source of this name and kind; it may never have been polled."""
        self._expected[name] = kind
        self._changed()

    def state(self, name: str | None) -> SourceState:
        """Of a source; without a name of all of them: down where one is, looked at when the last of them was."""
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
        """All of them as readers see them, with what did not fit in the logs of each."""
        unpolled = (
            SourceView(name, kind, last_poll_at=self.state(name).last_poll_at)
            for name, kind in self._expected.items()
            if name not in self._views
        )
        return tuple(
            _shown(view, anomalies.get(view.name, {}), timeline) for view in (*self._views.values(), *unpolled)
        )

    def publish(self, view: SourceView, at: float) -> None:
        """A source has been looked at, which was over at that moment."""
        self._views[view.name] = view
        before = self.state(view.name)
        down_since = (before.down_since or at) if view.up is False else None
        self._source_states[view.name] = replace(before, down_since=down_since, last_poll_at=view.last_poll_at)
        self._changed()

    def set_clock_offset(self, name: str, seconds: float | None, clock_steps: int) -> None:
        """Set how much later the source's files are dated than our clock says; ``None`` where that is not known."""
        self._source_states[name] = replace(self.state(name), clock_offset_seconds=seconds, clock_steps=clock_steps)

    def remove(self, name: str) -> None:
        """A source has left the configuration."""
        self._views.pop(name, None)
        self._source_states.pop(name, None)
        self._expected.pop(name, None)
        self._changed()

    def _changed(self) -> None:
        """Ten thousand beams without a log ask for all of them together."""
        states = [self.state(name) for name in self._expected.keys() | self._source_states.keys()]
        down = [each.down_since for each in states if each.down_since is not None]
        polls = [each.last_poll_at for each in states if each.last_poll_at is not None]
        looked = states and len(polls) == len(states)
        self._everywhere = SourceState(min(down, default=None), min(polls) if looked else None)

    def to_state(self) -> dict[str, SourceState]:
        """Their states, by name."""
        return dict(self._source_states)

    def resume(self, states: Mapping[str, SourceState], names: Collection[str]) -> None:
        """Take the states of an earlier process, of the sources that there still are."""
        self._source_states = {name: each for name, each in states.items() if name in names}
        self._changed()


def _shown(view: SourceView, anomalies: Mapping[str, int], timeline: Timeline) -> SourceView:
    both = Counter(view.anomalies)
    both.update(anomalies)
    last_poll_at = None if view.last_poll_at is None else timeline.to_wall(view.last_poll_at)
    return replace(view, anomalies=dict(both), last_poll_at=last_poll_at)
