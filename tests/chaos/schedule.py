"""Which faults happen when: drawn from a seed before anything begins, so that a run can be had again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.faults import FAULTS, OFTEN, Fault
from tests.chaos.site import PATIENCE_SECONDS, Site

_GAP_SECONDS = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    Args:
        at: seconds after the beginning.
        kind: what.
        seconds: for how long.
        seed: of its other choices.
    """

    at: float
    kind: type[Fault]
    seconds: float
    seed: int

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind.__name__} for {self.seconds:.1f} s"


def plan(seed: int, seconds: float) -> list[Planned]:
    """The faults of a whole run: every kind in random order, then every kind again, and so on."""
    chance = random.Random(seed)
    planned: list[Planned] = []
    deck: list[type[Fault]] = []
    at = 3.0
    while at < seconds:
        if not deck:
            kinds = (*FAULTS, *OFTEN)
            deck = chance.sample(kinds, len(kinds))
        kind = deck.pop()
        planned.append(Planned(at, kind, chance.uniform(*kind.seconds), chance.randrange(1 << 32)))
        at += chance.uniform(*_GAP_SECONDS)
    return planned


class Schedule:
    """Has faults happen, several at once where they need different things.

    Args:
        site: where.
        planned: what and when.

    Attributes:
        survived: how many of each kind there have been.
        begun: how many there have been that needed something.
        busy: what faults need now.
        history: what happened when, for whoever looks for a cause.
    """

    def __init__(self, site: Site, planned: list[Planned]) -> None:
        self.survived: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.busy: frozenset[str] = frozenset()
        self.history: list[str] = []
        self._site = site
        self._planned = list(planned)
        self._active: list[tuple[float, Fault]] = []
        self._began = time.monotonic()

    def run(self, check: Callable[[], None]) -> None:
        """All of them, one after another; ``check`` is called in between and may end it by raising."""
        try:
            while self._planned or self._active:
                self.step()
                check()
                time.sleep(0.05)
        finally:
            # Where it was ended early: what a fault has taken is given back.
            for _, fault in self._active:
                fault.end()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def step(self) -> None:
        """What is due."""
        for due, fault in list(self._active):
            if due <= self.elapsed:
                fault.end()
                self._active.remove((due, fault))
                self._say(f"{type(fault).__name__} over")
        self.busy = frozenset().union(*(fault.needs for _, fault in self._active))
        for planned in list(self._planned):
            if planned.at > self.elapsed:
                break
            fault = planned.kind(self._site, random.Random(planned.seed))
            if fault.needs & self.busy:
                continue
            if self._begin(planned, fault) or self.elapsed > planned.at + PATIENCE_SECONDS:
                self._planned.remove(planned)

    def _begin(self, planned: Planned, fault: Fault) -> bool:
        # Before it happens: whoever sees its effect must find its cause.
        before, self.busy = self.busy, self.busy | fault.needs
        self.begun.update(fault.needs)
        begun = fault.begin()
        if begun:
            self._active.append((self.elapsed + planned.seconds, fault))
            self.survived[type(fault).__name__] += 1
            beam = getattr(fault, "beam", None)
            self._say(f"{type(fault).__name__} for {planned.seconds:.1f} s{f' of {beam.beam_id}' if beam else ''}")
        else:
            self.busy = before
        return begun

    def _say(self, what: str) -> None:
        self.history.append(f"{self.elapsed:7.1f} s  {what}")
