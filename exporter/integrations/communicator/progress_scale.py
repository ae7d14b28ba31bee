"""Infers the scale on which the communicator itself writes ``progress``.

Its revisions differ. The development plan's revision has no column ``progress``. The next one (6232fb1, with the same
configuration) writes fixed values for phases: 10, 20, 30, 70, 85, 95. Revisions from d7ce6a3 on also write ``30 + 60
X/Y`` for batch X of Y, until April 2026 without a section ``progress_tracking``. The newest revision writes 40, then
``40 + 50 X/Y``.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.integrations.communicator.read import CommunicatorConfig
from exporter.integrations.communicator.table import CommunicatorTable, TableState

_PHASE_VALUES = frozenset({10.0, 20.0, 70.0, 85.0, 95.0})
"""Values that only revisions until April 2026 write; 0, 30, 40, 80 and 100 are written by several."""

_COARSE_RANGES = {40.0: (40, 90), 70.0: (30, 90)}
"""Values for 0 and 100 % of the batches, by ``coarse_phase_progress.HPC_RUNNING``."""

_EXACT = 1e-6


@dataclass(frozen=True, slots=True)
class ProgressScale:
    """The inferred scale.

    Attributes:
        range: values to write for 0 and 100 % of the batches; ``None`` if unknown.
        reason: the reason, as a sentence.
        assumed: whether it is only an assumption.
    """

    range: tuple[int, int] | None
    reason: str
    assumed: bool = False


def infer_scale(config: CommunicatorConfig, table: CommunicatorTable) -> ProgressScale:
    """Infer the scale for writing progress beside this communicator.

    Args:
        config: its configuration.
        table: its table.
    """
    coarse = config.tracking.coarse_running
    own = None if coarse is None else _COARSE_RANGES.get(coarse)
    from_30 = [value for value in table.values if 30 < value < 40 and _is_from_communicator(value)]
    if from_30:
        return ProgressScale(
            (30, 90), f"{_first_values(from_30)} in the column: the communicator writes 30 + 60 X/Y for batch X of Y."
        )
    if own is not None:
        return ProgressScale(own, "communicator: progress_tracking.coarse_phase_progress.HPC_RUNNING.")
    if config.tracking.there and not config.tracking.planned:
        return ProgressScale(None, "It writes progress itself, on a scale that its configuration does not tell.")
    if table.state is not TableState.READ:
        return _without_table(config)
    if not table.has_progress and not config.newest:
        return ProgressScale((0, 100), "The table has no column progress: this revision writes none.")
    return _without_section(config, table)


def _without_table(config: CommunicatorConfig) -> ProgressScale:
    """Infer from the configuration alone, without a section ``progress_tracking``."""
    if config.newest or (_redirects_here(config) and "/sim_" in config.log.text):
        because = (
            "It writes its log as revisions from October 2025 to April 2026 do, which write 30 + 60 X/Y themselves."
        )
        return ProgressScale((30, 90), because, assumed=True)
    return ProgressScale(
        (0, 100), "It is assumed to be the development plan's revision, which writes no progress.", assumed=True
    )


def _without_section(config: CommunicatorConfig, table: CommunicatorTable) -> ProgressScale:
    """Infer from table and configuration, without a section ``progress_tracking``."""
    raw = [value for value in table.values if 0 < value < 30 and value not in _PHASE_VALUES]
    batches = [value for value in table.values if 40 < value < 90 and _is_from_communicator(value)]
    phases = [value for value in table.values if value in _PHASE_VALUES]
    if raw:
        return ProgressScale((0, 100), f"{_first_values(raw)} in the column, which was written as 0 to 100 before.")
    if batches or config.newest or _redirects_here(config):
        seen = f"{_first_values(batches or phases)} in the column; " if batches or phases else ""
        because = (
            f"{seen}there is no section progress_tracking, and simulations write a log: revisions from October 2025 to "
            "April 2026 are like that, and write 30 + 60 X/Y themselves."
        )
        return ProgressScale((30, 90), because[0].upper() + because[1:], assumed=not seen)
    if phases:
        because = f"{_first_values(phases)} in the column: this revision writes fixed values for phases, not batches."
        return ProgressScale((0, 100), because)
    because = "Nothing in the column shows that the communicator writes it; the exporter may have added it."
    return ProgressScale((0, 100), because, assumed=True)


def _redirects_here(config: CommunicatorConfig) -> bool:
    """Return whether local simulations write a log; at the development plan's revision they do not."""
    return config.mode == "local" and config.redirected


def _is_from_communicator(value: float) -> bool:
    """Return whether the communicator wrote this value: the exporter rounds to two decimals."""
    return abs(value - round(value, 2)) > _EXACT


def _first_values(values: list[float]) -> str:
    """Return the first few values, as the beginning of a sentence."""
    shown = ", ".join(f"{value:.6g}" for value in values[:3])
    return f"{shown} {'is' if len(values) == 1 else 'are'}"
