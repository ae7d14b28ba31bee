"""Panels that several dashboards have."""

from __future__ import annotations

from grafanalib import core as grafana

from dashboards.model import GREEN, Query, stat
from dashboards.queries import BEAM, count_in


def beams_in(
    states: str, title: str, description: str, color: str, none: str = GREEN, selector: str = BEAM
) -> grafana.Stat:
    """How many beams are in one of these states: a big number in ``color``, in ``none`` while there is no such beam."""
    return stat(title, description, Query(count_in(states, selector)), thresholds=((None, none), (1, color)))
