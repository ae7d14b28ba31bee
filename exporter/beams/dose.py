"""The dose file of a run, and the durations that its engine measured, as its log reports them."""

from __future__ import annotations

from dataclasses import dataclass, replace

_NO_USABLE_DOSE = frozenset({"output_error", "output_missing", "empty_dose", "no_particles"})
"""Reasons of a failure that concern the dose itself."""


@dataclass(slots=True)
class DoseFacts:
    """The dose files that a run has written.

    A process that simulates several beams writes one file per beam. The last file is shown, with the number of files.

    Attributes:
        written: number of dose files written.
        path: the last file, as printed; ``None`` before the first.
        dimensions: its grid as ``400x400x1``; ``None`` if the log does not say.
        max_dose_gy: its largest dose in Gy; ``None`` if the log does not say.
        next_dimensions, next_max_dose_gy: the same of a dose that the log described before it was written.
        of_this_beam: the last file belongs to the beam that the engine simulates now.
    """

    written: int = 0
    path: str | None = None
    dimensions: str | None = None
    max_dose_gy: float | None = None
    next_dimensions: str | None = None
    next_max_dose_gy: float | None = None
    of_this_beam: bool = False

    def describe(self, dimensions: str | None, max_dose_gy: float | None) -> None:
        """Add facts to the last dose file, or to the next one if the last has them already."""
        if dimensions is not None:
            if self.of_this_beam and self.dimensions is None:
                self.dimensions = dimensions
            else:
                self.next_dimensions = dimensions
        if max_dose_gy is not None:
            if self.of_this_beam and self.max_dose_gy is None:
                self.max_dose_gy = max_dose_gy
            else:
                self.next_max_dose_gy = max_dose_gy

    def write(self, path: str) -> None:
        """Record that a dose file was written."""
        self.written += 1
        self.path, self.dimensions, self.max_dose_gy = path, self.next_dimensions, self.next_max_dose_gy
        self.next_dimensions = self.next_max_dose_gy = None
        self.of_this_beam = True

    def begin_beam(self) -> None:
        """Record that the engine simulates another beam now."""
        self.of_this_beam = False
        self.next_dimensions = self.next_max_dose_gy = None

    def written_before(self, reason: str | None) -> bool:
        """Return whether a usable dose file had been written before the run failed.

        Args:
            reason: the failure reason; ``None`` if the run has not failed.
        """
        return reason is not None and reason not in _NO_USABLE_DOSE and self.of_this_beam


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Durations that the engine measured, in seconds; ``None`` if its log does not say.

    Attributes:
        initialization_seconds, simulation_seconds, output_seconds: parts of a beam, added up over several beams.
        total_seconds: the whole process.
    """

    initialization_seconds: float | None = None
    simulation_seconds: float | None = None
    output_seconds: float | None = None
    total_seconds: float | None = None

    def plus(self, part: str, seconds: float) -> EngineTimes:
        """Return a copy with one more measured duration.

        Args:
            part: one of :data:`~exporter.logs.events.ENGINE_TIMES`.
            seconds: its duration.
        """
        name = f"{part}_seconds"
        known = getattr(self, name)
        return replace(self, **{name: seconds if known is None or part == "total" else known + seconds})


NO_ENGINE_TIMES = EngineTimes()
