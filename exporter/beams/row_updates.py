"""What a row of the table changes: new beams, new statuses, new runs."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.beams.beam import Beam
from exporter.beams.beam_rows import apply_row
from exporter.beams.retention import leaves_at
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store_data import StoreData
from exporter.beams.transitions import RunBefore, start_run

BEAMS_HELD = 2
"""The store holds twice ``max_beams`` beams. Those that are not shown are followed, too, and shown when others go."""


def update_row(data: StoreData, row: BeamRow, at: float) -> bool:
    """Apply a row that discovery has read.

    Args:
        data: the store's data.
        row: the row.
        at: when discovery began to read.

    Returns:
        Whether the beam has another status now.
    """
    beam = data.beams.get(row.key)
    if beam is None:
        _add_beam(data, row, at)
        return False
    if row.key in data.unconfirmed:
        # The log must be read before a row may end a run; the row is read again soon.
        return False
    data.rows_from_restart.discard(row.key)
    status_changed = row.status != beam.row.status
    before, paths_before = RunBefore.of(data, beam), _log_place(beam)
    if apply_row(beam, row, at, data.rules.statuses, data.timeline):
        start_run(data, beam, before)
    if beam.view is None:
        data.mark_changed(row.key)
    data.watch_version += paths_before != _log_place(beam)
    data.collect_decisions(beam)
    return status_changed


def mark_missing(data: StoreData, keys: Iterable[BeamKey], at: float) -> None:
    """Record that the rows of these beams did not exist at an instant."""
    for key in keys:
        beam = data.beams.get(key)
        if beam is not None and beam.row_missing_since is None:
            beam.row_missing_since = at


def _add_beam(data: StoreData, row: BeamRow, at: float) -> None:
    rules = data.rules
    if data.forgotten.is_unchanged(row) and not _is_case_open(data, row.key.case_id):
        return
    if len(data.beams) >= BEAMS_HELD * rules.max_beams:
        data.rows_without_room += 1  # it is read again soon, and added when there is room
        return
    beam = Beam.new(row, at, data.timeline)
    if (run_number := data.forgotten.run_number(row, rules.statuses)) is not None:
        beam.run_sequence.number = run_number
    if row.status in rules.statuses.terminal:
        beam.row_terminal_since = at if beam.row_written_at is None else min(at, beam.row_written_at)
    data.add_beam(beam)


def _is_case_open(data: StoreData, case_id: str) -> bool:
    """Whether a beam of the case is in the store and has not ended."""
    return any(leaves_at(data.beams[key], data.rules) is None for key in data.cases.beams(case_id))


def _log_place(beam: Beam) -> tuple[object, ...]:
    """The fields of a row that decide where a log is looked for."""
    row = beam.row
    return row.beam_path, row.hpc_job_id, row.log_path
