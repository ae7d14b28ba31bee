"""Finds the scale on which another program writes the column ``progress``, and advises what to set.

Since October 2025 the communicator writes progress, too: from 30 to 90 until April 2026, then from 40 to 90. It writes
a fixed value at the start of each phase. It reads the log every 30 seconds only, so its values are older than ours.
"""

from __future__ import annotations

Scale = tuple[float, float]

KNOWN_SCALES: tuple[Scale, ...] = ((30.0, 90.0), (40.0, 90.0), (0.0, 100.0))
"""Values that the communicator's revisions write at 0 and 100 % of the batches; the last is the exporter's default."""

PHASE_VALUES = frozenset({0.0, 10.0, 20.0, 30.0, 40.0, 70.0, 80.0, 85.0, 95.0, 100.0})
"""Values that they write at the start of a phase, independent of the batches."""

_TOLERANCE = 0.051
"""Largest difference between equal values, because the other program may round to one decimal."""

_VALUES_NEEDED = 3
"""Number of different values without a scale, or of phases only, that cannot be chance."""


class OtherWriter:
    """Collects values of another program until they show its scale, or that it has none.

    Args:
        own_scale: values that the mirror writes for 0 and 100 % (``mirror.range``).
    """

    def __init__(self, own_scale: Scale) -> None:
        self._own = own_scale
        self._candidates = frozenset((*KNOWN_SCALES, own_scale))
        self._fit_none: set[float] = set()
        self._of_phases: set[float] = set()
        self._advised = False

    def observe(self, value: float, batch_current: int, batches_total: int | None) -> str | None:
        """Add a value.

        Args:
            value: a value in the column that the mirror has not written.
            batch_current: the running batch; the other program knows no later one.
            batches_total: number of batches.

        Returns:
            The advice, once; ``None`` while the scale is not certain, or if it equals ours.
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
    """Whether a value stands for a whole number of batches on a scale, not later than the running one."""
    low, high = scale
    if not batches_total or high <= low:
        return False
    batch = round((value - low) / (high - low) * batches_total)
    expected = low + (high - low) * batch / batches_total
    # The other program may have read the log slightly later than we did.
    return 1 <= batch <= batch_current + 1 and abs(expected - value) <= _TOLERANCE


def _list(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))
