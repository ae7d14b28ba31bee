"""What a run says about its dose file, and how long it says that its parts took."""

from __future__ import annotations

from dataclasses import dataclass, replace

_NO_USABLE_DOSE = frozenset({"output_error", "output_missing", "empty_dose", "no_particles"})
"""Reasons of a failure that concern the dose itself."""


@dataclass(slots=True)
class DoseFacts:
    """The dose files that a run has written, as its log tells.

    A process that simulates several beams writes one file for each: the last one is shown, and how many there were.

    Attributes:
        written: how many dose files were written.
        path: the last one, as printed; ``None`` before the first.
        dimensions: its grid as ``400x400x1``, where the log says so.
        max_dose_gy: its largest dose in Gy, where the log says so.
        next_dimensions, next_max_dose_gy: the same of a dose that was described, and is not written yet.
        of_this_beam: the last one is that of the beam that the engine is at.
    """

    written: int = 0
    path: str | None = None
    dimensions: str | None = None
    max_dose_gy: float | None = None
    next_dimensions: str | None = None
    next_max_dose_gy: float | None = None
    of_this_beam: bool = False

    def describe(self, dimensions: str | None, max_dose_gy: float | None) -> None:
        """Add a fact to the dose that was written last, or keep it for the next one where that has it already."""
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
        """Note that a dose file was written."""
        self.written += 1
        self.path, self.dimensions, self.max_dose_gy = path, self.next_dimensions, self.next_max_dose_gy
        self.next_dimensions = self.next_max_dose_gy = None
        self.of_this_beam = True

    def begin_beam(self) -> None:
        """Note that the engine has begun with another beam."""
        self.of_this_beam = False
        self.next_dimensions = self.next_max_dose_gy = None

    def written_before(self, reason: str | None) -> bool:
        """Return whether the dose of the beam had been written when the run failed.

        Args:
            reason: why it failed; ``None`` where it has not.
        """
        return reason is not None and reason not in _NO_USABLE_DOSE and self.of_this_beam


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Durations as the engine measured them, in seconds; ``None`` where its log does not say.

    Attributes:
        initialization_seconds, simulation_seconds, output_seconds: parts of a beam; of several beams the sum.
        total_seconds: the whole process.
    """

    initialization_seconds: float | None = None
    simulation_seconds: float | None = None
    output_seconds: float | None = None
    total_seconds: float | None = None

    def plus(self, part: str, seconds: float) -> EngineTimes:
        """Return these with another duration.

        Args:
            part: one of :data:`~exporter.logs.events.ENGINE_TIMES`.
            seconds: how long it took.
        """
        name = f"{part}_seconds"
        known = getattr(self, name)
        return replace(self, **{name: seconds if known is None or part == "total" else known + seconds})


NO_ENGINE_TIMES = EngineTimes()
