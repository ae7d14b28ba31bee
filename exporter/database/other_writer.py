"""Tells from the values of another writer of the column ``progress`` on which scale it writes, and what to do about it.

From October 2025 on the communicator writes progress, too: 30 to 90 until April 2026, then 40 to 90. It writes a fixed
value at the start of each phase, and looks at the log every 30 seconds only, so its values are older than ours.
"""

from __future__ import annotations

Scale = tuple[float, float]

KNOWN_SCALES: tuple[Scale, ...] = ((30.0, 90.0), (40.0, 90.0), (0.0, 100.0))
"""What the communicator's revisions write at 0 and at 100 % of the batches; the last is the exporter's default."""

PHASE_VALUES = frozenset({0.0, 10.0, 20.0, 30.0, 40.0, 70.0, 80.0, 85.0, 95.0, 100.0})
"""What they write at the start of a phase, whatever the batches."""

_TOLERANCE = 0.051
"""Values that differ by no more than this count as equal: the other writer may round to one decimal."""

_VALUES_NEEDED = 3
"""So many different values that fit no scale, or are all of phases, are not by chance."""


class OtherWriter:
    """Collects the values of another writer until they show its scale, or that it has none.

    Args:
        own_scale: what 0 and 100 % are written as by the mirror (``mirror.range``).
    """

    def __init__(self, own_scale: Scale) -> None:
        self._own = own_scale
        self._candidates = frozenset((*KNOWN_SCALES, own_scale))
        self._fit_none: set[float] = set()
        self._of_phases: set[float] = set()
        self._advised = False

    def observe(self, value: float, batch_current: int, batches_total: int | None) -> str | None:
        """Take note of a value.

        Args:
            value: what stands in the column, and was not written by us.
            batch_current: the batch that runs; the other writer knows of no later one.
            batches_total: how many there are.

        Returns:
            What to say, once; ``None`` as long as nothing is certain, or if the other writer has the same scale.
        """
        if self._advised:
            return None
        fitting = frozenset(
            scale for scale in (*KNOWN_SCALES, self._own) if _is_on(scale, value, batch_current, batches_total)
        )
        if value in PHASE_VALUES:
            if not fitting:
                self._of_phases.add(value)
        elif fitting & self._candidates:
            self._candidates &= fitting
        else:
            self._fit_none.add(value)
        advice = self._advice()
        self._advised = advice is not None
        return advice

    def _advice(self) -> str | None:
        if len(self._fit_none) >= _VALUES_NEEDED:
            return (
                f"its values ({_list(self._fit_none)}) are on no scale that we know, so no mirror.range agrees with "
                "them; set mirror.enabled to false to leave the column to it"
            )
        if self._fit_none:
            return None
        if len(self._candidates) == 1:
            [(low, high)] = self._candidates
            if (low, high) == self._own:
                return None
            return (
                f"its values are on a scale from {low:g} to {high:g}; set mirror.range to [{low:g}, {high:g}] to write "
                "on the same scale, or mirror.enabled to false to leave the column to it"
            )
        if len(self._of_phases) >= _VALUES_NEEDED:
            return (
                f"it writes one fixed value for each phase ({_list(self._of_phases)}), so no mirror.range agrees with "
                "them; set mirror.enabled to false to leave the column to it"
            )
        return None


def _is_on(scale: Scale, value: float, batch_current: int, batches_total: int | None) -> bool:
    """Whether a value is what a whole batch, not later than the current one, is on a scale."""
    low, high = scale
    if not batches_total or high <= low:
        return False
    batch = round((value - low) / (high - low) * batches_total)
    expected = low + (high - low) * batch / batches_total
    # It may have read the log a moment later than we did.
    return 1 <= batch <= batch_current + 1 and abs(expected - value) <= _TOLERANCE


def _list(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))
