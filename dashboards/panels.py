"""Panels that several dashboards share."""

from __future__ import annotations

from grafanalib import core as grafana

from dashboards.model import GREEN, Query, stat
from dashboards.queries import BEAM, count_in


def beams_in(
    states: str, title: str, description: str, color: str, none: str = GREEN, selector: str = BEAM
) -> grafana.Stat:
    """Return a panel that counts the beams in these states; ``none`` is its colour while the count is 0."""
    return stat(title, description, Query(count_in(states, selector)), thresholds=((None, none), (1, color)))
