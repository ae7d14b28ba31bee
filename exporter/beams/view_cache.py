"""A beam that stands still: how long its state holds, and the view made of it last.

Most beams stand still between two snapshots. While nothing has been told of one and no limit has passed, neither its
state nor its view is worked out anew; only what the clock changes in a view is. Nothing here knows the beam itself: it
drops what stands here when it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.beams.estimate import Forecast, Work
from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamRow, BeamView
from exporter.beams.sources import SourceState


@dataclass(slots=True)
class CachedView:
    """A view, in which nothing but the clock's part of the estimates can change while the state holds.

    Args:
        view: the beam as it was shown last.
        forecast: of its estimates.
        moves: whether the clock moves them; ``endless``: whether no end is told.
        prior, prior_rate: which pace of earlier runs the forecast was made by, where it was, and what that was.
    """

    view: BeamView
    forecast: Forecast
    moves: bool
    endless: bool
    prior: Work | None
    prior_rate: float | None

    def again(self, at: float, row: BeamRow, rates: Mapping[Work, float]) -> BeamView | None:
        """What the view is at a later moment.

        Args:
            at: the moment, epoch seconds.
            row: as it was read last.
            rates: seconds per particle (or batch) of recent runs.

        Returns:
            The last view itself where nothing in it has changed; ``None`` where the forecast was made by another pace.
        """
        if self.prior is not None and self.prior_rate != rates.get(self.prior):
            return None
        view = self.view
        ratio, remaining = view.estimated_ratio, view.remaining_seconds
        if self.moves:
            later_ratio, remaining = self.forecast.at(at)
            if later_ratio > ratio:
                ratio = later_ratio
            if self.endless:
                remaining = None
        if ratio == view.estimated_ratio and remaining == view.remaining_seconds and row is view.row:
            return view
        self.view = view = view.with_estimates(ratio, remaining, row)
        return view


@dataclass(slots=True)
class Standing:
    """How long a beam's state holds, and by what it was judged, besides the beam itself.

    Args:
        since, until: epoch seconds; at ``until`` a limit of silence, a grace or the like may be over.
        rules: by which it was judged.
        down_since: of its source.
        terminal_since: of its row; ``looked``: whether the source had been looked at since.
        shown: the view made since, once there is one.
    """

    since: float
    until: float
    rules: StoreRules
    down_since: float | None
    terminal_since: float | None
    looked: bool
    shown: CachedView | None = None

    def holds(self, at: float, rules: StoreRules, source: SourceState) -> bool:
        """State and mismatch are at that moment what they were when the beam was judged."""
        return (
            self.since <= at < self.until
            and self.rules is rules
            and self.down_since == source.down_since
            and (self.terminal_since is None or self.looked == source.polled_since(self.terminal_since))
        )
