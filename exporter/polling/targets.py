"""The beams that a source polls for, in groups that are polled together."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.snapshot import WatchedBeam
from exporter.sources.source import LogStat


@dataclass(slots=True, eq=False)
class Target:
    """A beam whose log is polled, and where that log may be.

    Attributes:
        beam: the beam.
        row_fields: the fields of its row that ``paths`` were made of.
        paths: where its log may be.
        present: those of ``paths`` at which a log was at the last poll; ``None`` before the first.
        group: the group with which it is polled.
        polled_at: when its last poll began; ``None`` if unknown. For an unchanged log see the group.
        polled_before: when the poll before that began.
    """

    beam: WatchedBeam
    row_fields: tuple[str | None, ...]
    paths: tuple[str, ...]
    present: tuple[str, ...] | None = None
    group: TargetGroup | None = None
    polled_at: float | None = None
    polled_before: float | None = None


class TargetGroup:
    """Targets that are polled together.

    Attributes:
        open: those whose logs are examined one by one.
        unchanged: the only log of each of the others, by path, as it was when nothing was left to read. While its stat
            stays the same it costs one comparison.
        polled_at: when the last poll of the unchanged logs began.
        due_at: when the next poll is due.
    """

    __slots__ = ("due_at", "open", "polled_at", "unchanged")

    def __init__(self, due_at: float) -> None:
        self.open: dict[Target, None] = {}
        self.unchanged: dict[str, LogStat] = {}
        self.polled_at: float | None = None
        self.due_at = due_at

    def add(self, target: Target) -> None:
        """Move a target to this group; its logs are examined at the next poll."""
        if target.group is self:
            return
        if target.group is not None:
            target.group.remove(target)
        target.group = self
        self.open[target] = None

    def remove(self, target: Target) -> None:
        """Forget a target."""
        self.reopen(target)
        del self.open[target]
        # Groups and targets hold each other, and the garbage collector runs rarely.
        target.group = None

    def set_unchanged(self, target: Target, stat: LogStat) -> None:
        """Note that nothing is left to read in a target's only log."""
        self.open.pop(target, None)
        self.unchanged[target.paths[0]] = stat

    def reopen(self, target: Target) -> None:
        """Have a target's logs examined at the next poll."""
        if target not in self.open:
            self.open[target] = None
            del self.unchanged[target.paths[0]]
            target.polled_at = _later(target.polled_at, self.polled_at)


def _later(one: float | None, other: float | None) -> float | None:
    """Return the later of two times, each of which may be unknown."""
    return max((each for each in (one, other) if each is not None), default=None)
