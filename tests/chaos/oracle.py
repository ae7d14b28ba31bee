"""What the exporter must say when all is over, compared with what it does say."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.chaos.beams import Beam
from tests.chaos.site import Site

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def runs_by_outcome(beams: list[Beam]) -> Counter[tuple[str, str, str]]:
    """Runs that have ended, by source, outcome and reason."""
    return Counter(
        (beam.source, run.truth.outcome, run.truth.reason)
        for beam in beams
        for run in beam.runs
        if run.ended_at is not None
    )


def counted_runs(samples: Samples) -> Counter[tuple[str, str, str]]:
    """Runs that the exporter has counted."""
    found: Counter[tuple[str, str, str]] = Counter()
    for (name, labels), value in samples.items():
        if name == "mqi_beam_runs_total" and value:
            its = dict(labels)
            found[its["source"], its["outcome"], its["reason"]] = int(value)
    return found


class Oracle:
    """Compares; counts what it has compared."""

    def __init__(self, site: Site) -> None:
        self.checks = 0
        self._site = site

    def differences(self) -> list[str]:
        """Everything that is not as it must be."""
        exporter = self._site.exporter
        assert exporter is not None
        self.checks = 0
        samples = exporter.metrics()
        shown = {beam["beam_id"]: beam for beam in exporter.get("/api/v1/beams").json()["beams"]}
        try:
            rows = self._site.table.rows()
        except sqlite3.Error as error:
            return [f"the database cannot be read: {error}"]
        by_beam: dict[str, dict[tuple[str, str], float]] = {}
        for (name, labels), value in samples.items():
            its = dict(labels)
            if value and "beam_id" in its:
                which = its.get("state") or its.get("reason") or ""
                by_beam.setdefault(its["beam_id"], {})[name, which] = value
        found: list[str] = []
        for beam in self._site.beams:
            found += self._of_metrics(beam, by_beam.get(beam.beam_id, {}))
            found += self._of_api(beam, shown.get(beam.beam_id, {}))
            found += self._of_row(beam, rows.get(beam.beam_id))
        return [*found, *self._of_clocks(samples), *self._of_counters(samples)]

    def _same(self, what: str, is_: object, should_be: object) -> Iterator[str]:
        self.checks += 1
        if is_ != should_be:
            yield f"{what} is {is_}, not {should_be}"

    def _of_metrics(self, beam: Beam, samples: dict[tuple[str, str], float]) -> Iterator[str]:
        truth, name = beam.run.truth, f"{beam.beam_id} ({beam.run.simulation.dialect}, metrics)"
        yield from self._same(f"{name}: state", samples.get(("mqi_beam_state", truth.outcome)), 1)
        for metric, value in (
            ("mqi_beam_batches_total", truth.total or 0),
            ("mqi_beam_batch_current", truth.started),
            ("mqi_beam_batches_completed", truth.completed),
            ("mqi_beam_progress_ratio", truth.started / truth.total if truth.total else 0),
        ):
            yield from self._same(f"{name}: {metric}", samples.get((metric, ""), 0), value)
        if truth.outcome == "failed":
            yield from self._same(f"{name}: failure", samples.get(("mqi_beam_failure", truth.reason)), 1)
        else:
            estimated = samples.get(("mqi_beam_progress_estimated_ratio", ""))
            yield from self._same(f"{name}: estimated progress", estimated, 1)
        unsure = sum(1 for each, _ in self._site.communicator.unsure if each is beam)
        number = int(samples.get(("mqi_beam_run", ""), 0))
        self.checks += 1
        if not len(beam.runs) - unsure <= number <= len(beam.runs):
            yield f"{name}: run {number} of {len(beam.runs)}, {unsure} of which may have been missed"

    def _of_api(self, beam: Beam, shown: dict[str, Any]) -> Iterator[str]:
        truth, name = beam.run.truth, f"{beam.beam_id} ({beam.run.simulation.dialect}, API)"
        expected = {
            "source": beam.source,
            "state": truth.outcome,
            "reason": truth.reason or None,
            "batches_total": truth.total,
            "batch_current": truth.started,
            "batches_completed": truth.completed,
        }
        for field, value in expected.items():
            yield from self._same(f"{name}: {field}", shown.get(field), value)

    def _of_row(self, beam: Beam, row: tuple[str, float] | None) -> Iterator[str]:
        truth, name = beam.run.truth, f"{beam.beam_id} ({beam.run.simulation.dialect}, row)"
        status, progress = row or (None, None)
        if status == "failed":
            # The row may have been over before the last value could be written, and is not touched since.
            self.checks += 1
            if progress is None or not 0 <= progress <= truth.highest_percent:
                yield f"{name}: progress of a failed row is {progress}, beyond {truth.highest_percent}"
            return
        yield from self._same(f"{name}: status", status, _LAST_STATUS[truth.outcome])
        yield from self._same(f"{name}: progress", progress, truth.percent)

    def _of_clocks(self, samples: Samples) -> Iterator[str]:
        """How far each source's clock is off; not known where nothing has grown since the exporter's own was set."""
        for source, seconds in self._site.clock_offsets.items():
            learned = samples.get(("mqi_source_clock_offset_seconds", frozenset({("source", source)})))
            self.checks += 1
            if learned is not None and abs(learned - seconds) > _CLOCK_ERROR_SECONDS:
                yield f"the clock of {source} is shown to be off by {learned} s, not {seconds} s"

    def _of_counters(self, samples: Samples) -> Iterator[str]:
        ended, counted = runs_by_outcome(self._site.beams), counted_runs(samples)
        unsure: Counter[tuple[str, str, str]] = Counter()
        for beam, run in self._site.communicator.unsure:
            unsure[beam.source, run.truth.outcome, run.truth.reason] += 1
        for key in ended.keys() | counted.keys():
            self.checks += 1
            if not ended[key] - unsure[key] <= counted[key] <= ended[key]:
                yield f"runs {key}: {counted[key]} counted, {ended[key]} ended, {unsure[key]} may have been missed"


_CLOCK_ERROR_SECONDS = 5.0
"""Growth is dated within two polls, and polls of a host may take seconds while the machine is busy."""

_LAST_STATUS = {"succeeded": "completed", "failed": "simulation_running"}
"""Of a row that is not said to have failed."""
