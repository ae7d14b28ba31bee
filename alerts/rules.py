"""The recording rules that dashboards and alerts share, and the alerts.

An alert has the labels of its beam or source, so that Alertmanager can group and inhibit by them. Its texts contain
only labels and values of ``/metrics``, so they show pseudonyms wherever ``/metrics`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from alerts.alert import BEAM, EXPORTER, SOURCE, Alert
from alerts.beam_alerts import beam_alerts
from alerts.exporter_alerts import exporter_alerts, source_alerts
from alerts.parameters import Parameters, duration


def _recorded_of_beams(parameters: Parameters) -> list[dict[str, str]]:
    return [
        {
            "record": "mqi_beam:stalled_seconds",
            "expr": f"""\
(time() - mqi_beam_last_progress_timestamp_seconds > mqi_beam_stall_threshold_seconds)
and on ({BEAM})
  max by ({BEAM}) (mqi_beam_state{{state=~"starting|running|stalled|expired"}}) == 1
and on ({SOURCE})
  (time() - mqi_source_last_poll_timestamp_seconds < {parameters.source_silent_seconds})
or
# a known stall keeps its last value while the exporter or the source is down
mqi_beam:stalled_seconds and on ({EXPORTER}) up == 0
or
mqi_beam:stalled_seconds and on ({BEAM}) mqi_beam_state{{state="unreachable"}} == 1
""",
        },
        {
            "record": "mqi_beam:overdue_seconds",
            "expr": f"""\
mqi_beam:stalled_seconds - mqi_beam_stall_threshold_seconds
or
mqi_beam:overdue_seconds and on ({BEAM}) mqi_beam:stalled_seconds
""",
        },
        {
            "record": "mqi_beam:seconds_per_particle",
            "expr": """\
mqi_beam_batch_duration_seconds / (mqi_beam_particles_per_batch > 0)
and mqi_beam_batches_completed >= 2
""",
        },
        {
            "record": "mqi_beam:slowness_ratio",
            "expr": f"""\
mqi_beam:seconds_per_particle
  / on ({SOURCE}) group_left () mqi_source:seconds_per_particle:usual
""",
        },
    ]


def _recorded_of_sources(parameters: Parameters) -> list[dict[str, str]]:
    over = duration(parameters.usual_over_seconds)
    return [
        {
            "record": "mqi_source:seconds_per_particle:median",
            "expr": "quantile without (case_id, beam_id) (0.5, mqi_beam:seconds_per_particle)\n",
        },
        {
            "record": "mqi_source:seconds_per_particle:usual",
            "expr": f"quantile_over_time(0.5, mqi_source:seconds_per_particle:median[{over}])\n",
        },
    ]


def alerts(parameters: Parameters) -> list[Alert]:
    """Return all alerts."""
    return [*beam_alerts(parameters), *source_alerts(parameters), *exporter_alerts(parameters)]


def groups(parameters: Parameters) -> dict[str, Any]:
    """Return the content of the rule file.

    A group evaluates its rules in order, but groups run at different times. So each group records the series that its
    own alerts read, before the alerts.
    """

    def alerting(of: Callable[[Parameters], Sequence[Alert]]) -> list[dict[str, Any]]:
        return [alert.rule(parameters) for alert in of(parameters)]

    return {
        "groups": [
            {
                "name": "mqi-usual",
                "interval": duration(parameters.usual_every_seconds),
                "rules": _recorded_of_sources(parameters),
            },
            {"name": "mqi-beams", "rules": [*_recorded_of_beams(parameters), *alerting(beam_alerts)]},
            {"name": "mqi-sources", "rules": alerting(source_alerts)},
            {"name": "mqi-exporters", "rules": alerting(exporter_alerts)},
        ]
    }


_HEAD = """\
# Rules for Prometheus 2.42 or later. Written by `python -m alerts`: change the Python files in alerts/,
# or export them with your own addresses: mqi-exporter alerts export DIR --grafana.url URL --runbook.url URL
"""


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, unchanged."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text.rstrip("\n") else None)


_Dumper.add_representer(str, _text)


def rule_file(parameters: Parameters) -> str:
    """Return the text of ``mqi-rules.yml``."""
    rules = _stripped(groups(parameters))
    return _HEAD + yaml.dump(rules, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _stripped(value: Any) -> Any:
    """Remove the newline at the end of one-line expressions."""
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return value.rstrip("\n") if isinstance(value, str) and value.count("\n") == 1 else value
