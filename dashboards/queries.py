"""Selectors and expressions that several panels use.

Ids of cases and beams can contain any characters: ``P(01)``, ``7.1``, ``O'Neil``, ``a\\b``. Grafana's default format
of a variable depends on the version of Grafana and on the number of chosen values, and fails for some of these ids. So
each use of such a variable names its format, and stands in backticks, in which PromQL has no escapes. Panels show
nothing for an id that contains a backtick.
"""

from __future__ import annotations

EXPORTER = 'job=~"$job", instance=~"$instance"'
ALERT = 'job=~"$job", instance=~"$instance|"'
"""Also selects alerts without an instance: MQIExporterAbsent."""

SOURCE = f'{EXPORTER}, source=~"$source"'
CASES_CHOSEN = "case_id=~`${case:regex}`"
"""For dashboards on which several cases can be chosen."""

CASE_CHOSEN = "case_id=`${case:raw}`"
"""For the dashboard of one case. As a regular expression, 7.1 would also match 781, and P(01) would match nothing."""

_BEAMS_CHOSEN = "beam_id=~`${beam:regex}`"
BEAM = f"{SOURCE}, {CASES_CHOSEN}, {_BEAMS_CHOSEN}"
BEAM_OF_CASE = f"{SOURCE}, {CASE_CHOSEN}, {_BEAMS_CHOSEN}"

KEYS = "case_id, beam_id, source"
"""Labels of a beam in tables. A beam is one row, even if several exporters see it."""

ACTIVE = "starting|running|stalled|expired|unreachable"
"""States of beams that have a log and have not ended."""

STATE_CODES = ("waiting", "starting", "running", "stalled", "expired", "unreachable", "failed", "succeeded")
"""States in the order of their numbers: a state timeline panel shows numbers only."""


def per_beam(metric: str, selector: str = BEAM) -> str:
    """Return one value for each beam, with only the labels by which a table joins its rows."""
    return f"max by ({KEYS}) ({metric}{{{selector}}})"


def only_in(states: str, expression: str, selector: str = BEAM) -> str:
    """Return ``expression``, which has one value for each beam, for beams in one of these states only."""
    return f'{expression} and on ({KEYS}) max by ({KEYS}) (mqi_beam_state{{{selector}, state=~"{states}"}}) == 1'


def reason(selector: str = BEAM) -> str:
    """Return why a beam failed; no value for beams that have not failed."""
    return f"max by ({KEYS}, reason) (mqi_beam_failure{{{selector}}})"


def count_in(states: str, selector: str = BEAM) -> str:
    """Count the beams in these states, each once even if several exporters see it."""
    in_one = per_beam("mqi_beam_state", f'{selector}, state=~"{states}"')
    return f"count({in_one} == 1) or vector(0)"


def state_code(selector: str = BEAM) -> str:
    """Return the state of each beam as its index in :data:`STATE_CODES`."""
    coded = (f'mqi_beam_state{{{selector}, state="{state}"}} * {code}' for code, state in enumerate(STATE_CODES))
    return f"sum by ({KEYS}) ({' or '.join(coded)})"


def mean_seconds(metric: str, by: str, selector: str) -> str:
    """Return the mean of a summary or histogram over the rate interval."""
    spent = f"sum by ({by}) (rate({metric}_sum{{{selector}}}[$__rate_interval]))"
    return f"{spent} / sum by ({by}) (rate({metric}_count{{{selector}}}[$__rate_interval]))"
