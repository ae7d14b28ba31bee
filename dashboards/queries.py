"""What expressions of several panels share: selectors, and sets of beams.

Ids of cases and beams are other people's: ``P(01)``, ``7.1``, ``O'Neil``, ``a\\b``. Grafana's default format of a
variable depends on its version and on whether the variable has several values; it breaks at some of these. So each use
of such a variable names its format, and stands in backticks, where PromQL knows no escapes. Of an id that holds a
backtick nothing is shown.
"""

from __future__ import annotations

EXPORTER = 'job=~"$job", instance=~"$instance"'
ALERT = 'job=~"$job", instance=~"$instance|"'
"""That of no exporter, too: MQIExporterAbsent has no instance."""

SOURCE = f'{EXPORTER}, source=~"$source"'
CASES_CHOSEN = "case_id=~`${case:regex}`"
"""Of a dashboard on which several cases may be chosen."""

CASE_CHOSEN = "case_id=`${case:raw}`"
"""Of a dashboard of one case. A regular expression would take 7.1 for 781, and P(01) for nothing."""

_BEAMS_CHOSEN = "beam_id=~`${beam:regex}`"
BEAM = f"{SOURCE}, {CASES_CHOSEN}, {_BEAMS_CHOSEN}"
BEAM_OF_CASE = f"{SOURCE}, {CASE_CHOSEN}, {_BEAMS_CHOSEN}"

KEYS = "case_id, beam_id, source"
"""Labels of a beam in tables, where a beam is one row whichever exporter sees it."""

ACTIVE = "starting|running|stalled|expired|unreachable"
"""States of a beam that has a log and has not ended."""

STATE_CODES = ("waiting", "starting", "running", "stalled", "expired", "unreachable", "failed", "succeeded")
"""States in the order of their codes on a time line, which shows numbers only."""


def per_beam(metric: str, selector: str = BEAM) -> str:
    """One value per beam and nothing else: rows of a table are joined by their labels."""
    return f"max by ({KEYS}) ({metric}{{{selector}}})"


def only_in(states: str, expression: str, selector: str = BEAM) -> str:
    """``expression`` (one value per beam) for beams in one of these states."""
    return f'{expression} and on ({KEYS}) max by ({KEYS}) (mqi_beam_state{{{selector}, state=~"{states}"}}) == 1'


def reason(selector: str = BEAM) -> str:
    """Why a beam failed; nothing for others."""
    return f"max by ({KEYS}, reason) (mqi_beam_failure{{{selector}}})"


def count_in(states: str, selector: str = BEAM) -> str:
    """How many beams are in one of these states, each once whichever exporter sees it; 0 where there is none."""
    in_one = per_beam("mqi_beam_state", f'{selector}, state=~"{states}"')
    return f"count({in_one} == 1) or vector(0)"


def state_code(selector: str = BEAM) -> str:
    """The beam's state as the number of its place in :data:`STATE_CODES`."""
    coded = (f'mqi_beam_state{{{selector}, state="{state}"}} * {code}' for code, state in enumerate(STATE_CODES))
    return f"sum by ({KEYS}) ({' or '.join(coded)})"


def mean_seconds(metric: str, by: str, selector: str) -> str:
    """Mean of a summary or histogram."""
    spent = f"sum by ({by}) (rate({metric}_sum{{{selector}}}[$__rate_interval]))"
    return f"{spent} / sum by ({by}) (rate({metric}_count{{{selector}}}[$__rate_interval]))"
