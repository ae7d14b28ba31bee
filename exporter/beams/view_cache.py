"""The view of a beam that was made last, kept until something that it shows may have changed.

Most beams do not change between two snapshots. A scrape of 10 000 beams judges and copies only those that did; for the
others only the two estimates move with the clock. ``tests/beams/test_store_snapshots.py`` compares this cache with
views that are made each time.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.estimate import Forecast
from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamRow, BeamView
from exporter.beams.sources import SourceState
from exporter.beams.state_rules import Condition
from exporter.process.clock import Timeline


@dataclass(slots=True)
class CachedView:
    """The condition of a beam, and the view made from it. A beam drops it when the beam changes.

    Args:
        condition: the condition, valid from ``judged_at`` to ``valid_until``.
        rules: the configuration that it was judged by.
        down_since: since when the source was down; ``None`` if it was up.
        row_terminal_since: when the row became terminal; ``polled``: whether the source had been polled since.
        recorded: whether the store has recorded the condition; ``rates_version``: the version of the paces it used.
        view: the view; ``None`` until a reader needs it; ``timeline``: the timeline that converted its times.
        forecast: the inputs of its estimates; ``None`` without a view.
        changes_with_time: whether the estimates change with time; ``endless``: whether no remaining time is shown.
        least_ratio: the highest estimated progress shown before; the view shows no less.
    """

    condition: Condition
    judged_at: float
    valid_until: float
    rules: StoreRules
    down_since: float | None
    row_terminal_since: float | None
    polled: bool
    recorded: bool = False
    rates_version: int = 0
    view: BeamView | None = None
    timeline: Timeline | None = None
    forecast: Forecast | None = None
    changes_with_time: bool = False
    endless: bool = False
    least_ratio: float = 0.0

    def valid(self, at: float, rules: StoreRules, source: SourceState) -> bool:
        """Whether the condition is the same at another instant.

        Args:
            at: the instant.
            rules: limits of silence, and what statuses mean.
            source: health of the beam's source.
        """
        return (
            self.judged_at <= at < self.valid_until
            and self.rules is rules
            and self.down_since == source.down_since
            and (self.row_terminal_since is None or self.polled == source.polled_since(self.row_terminal_since))
        )

    def view_at(self, at: float, row: BeamRow, timeline: Timeline) -> BeamView | None:
        """The view at another instant; the same object where nothing in it has changed.

        Args:
            at: the instant; the condition must be valid then.
            row: the row as it was read last.
            timeline: converts instants to wall-clock times.

        Returns:
            The view; ``None`` where none was made with this timeline.
        """
        view = self.view
        if view is None or self.forecast is None or self.timeline is not timeline:
            return None
        ratio, remaining = view.estimated_ratio, view.remaining_seconds
        if self.changes_with_time:
            ratio, remaining = self.forecast.at(at)
            if ratio < self.least_ratio:
                ratio = self.least_ratio
            if self.endless:
                remaining = None
        if ratio == view.estimated_ratio and remaining == view.remaining_seconds and row is view.row:
            return view
        self.view = view = view.with_estimates(ratio, remaining, row)
        return view
