"""How the sources are: what readers are shown of them, and what their beams' states depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from exporter.beams.snapshot import SourceView
from exporter.process.moments import moved


@dataclass(frozen=True, slots=True)
class SourceState:
    """What its beams must know of a source: whether it answers, and how its files are dated.

    Args:
        down_since: since when it does not answer, epoch seconds; ``None`` while it does.
        last_poll_at: when it was polled last, epoch seconds.
        clock_offset_seconds: how much later its files are dated than our clock says; ``None`` while that is not known.
    """

    down_since: float | None = None
    last_poll_at: float | None = None
    clock_offset_seconds: float | None = None

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

    def views(self, anomalies: Mapping[str, Mapping[str, int]]) -> tuple[SourceView, ...]:
        """All of them as readers see them, with what did not fit in the logs of each."""
        unpolled = (
            SourceView(name, kind, last_poll_at=self.state(name).last_poll_at)
            for name, kind in self._expected.items()
            if name not in self._views
        )
        return tuple(_with_anomalies(view, anomalies.get(view.name, {})) for view in (*self._views.values(), *unpolled))

    def publish(self, view: SourceView, at: float) -> None:
        """A source has been looked at, which was over at that moment."""
        self._views[view.name] = view
        before = self.state(view.name)
        down_since = (before.down_since or at) if view.up is False else None
        self._source_states[view.name] = SourceState(down_since, view.last_poll_at, before.clock_offset_seconds)
        self._changed()

    def set_clock_offset(self, name: str, seconds: float | None) -> None:
        """Take how much later the source's files are dated than our clock says; ``None`` where that is not known."""
        self._source_states[name] = replace(self.state(name), clock_offset_seconds=seconds)

    def remove(self, name: str) -> None:
        """A source has left the configuration."""
        self._views.pop(name, None)
        self._source_states.pop(name, None)
        self._expected.pop(name, None)
        self._changed()

    def move(self, seconds: float) -> None:
        """Our clock was set by so much: how far others are from it is not known any more."""
        self._source_states = {
            name: SourceState(moved(each.down_since, seconds), moved(each.last_poll_at, seconds))
            for name, each in self._source_states.items()
        }
        self._views = {
            name: replace(each, last_poll_at=moved(each.last_poll_at, seconds)) for name, each in self._views.items()
        }
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


def _with_anomalies(view: SourceView, anomalies: Mapping[str, int]) -> SourceView:
    if not anomalies:
        return view
    both = Counter(view.anomalies)
    both.update(anomalies)
    return replace(view, anomalies=dict(both))
