"""Which dose files to search for, and what a search changes."""

from __future__ import annotations

from exporter.beams.output import OutputSearchResult, checking_sources
from exporter.beams.snapshot import ENDED_STATES, BeamKey, OutputSearch
from exporter.beams.store_data import StoreData
from exporter.beams.transitions import advance_beam


def due_searches(data: StoreData, source: str, at: float, limit: int) -> list[OutputSearch]:
    """Return the searches that a source should make now, those first that have waited longest.

    Args:
        data: the store's data.
        source: its name.
        at: the present instant.
        limit: largest number of searches.
    """
    due: list[tuple[float, BeamKey]] = []
    for key in list(data.outputs_open):
        beam = data.beams.get(key)
        if beam is None:
            data.outputs_open.discard(key)
        elif key not in data.unconfirmed:
            sources = checking_sources(beam.source, data.rules.output_sources)
            instants = {each: beam.output.due_at(each) for each in sources}
            next_at = instants.get(source)
            if all(each is None for each in instants.values()):
                data.outputs_open.discard(key)
            elif next_at is not None and next_at <= at:
                due.append((next_at, key))
    due.sort()
    return [_search(data, key) for _, key in due[:limit]]


def _search(data: StoreData, key: BeamKey) -> OutputSearch:
    beam = data.beams[key]
    written_after = beam.output.written_after(beam.run, beam.row_terminal_since, data.timeline)
    return OutputSearch(beam.row, beam.run_sequence.number, written_after)


def update_output(data: StoreData, search: OutputSearch, source: str, result: OutputSearchResult, at: float) -> bool:
    """Apply the result of a search. That of an earlier run is ignored.

    Args:
        data: the store's data.
        search: the search.
        source: the source that made it.
        result: what it found.
        at: when.

    Returns:
        Whether the beam has succeeded or failed by it.
    """
    key = search.row.key
    beam = data.beams.get(key)
    if beam is None or beam.run_sequence.number != search.run_number:
        return False
    before = beam.output
    sources = checking_sources(beam.source, data.rules.output_sources)
    beam.output = output = before.record_search(source, result, at, sources)
    data.mark_changed(key)
    if (output.state, output.problem) == (before.state, before.problem):
        return False
    beam.invalidate()
    advance_beam(data, beam, at)
    return beam.state in ENDED_STATES
