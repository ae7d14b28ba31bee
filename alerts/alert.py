"""What an alert is, and templates that several alerts use in their texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from alerts.parameters import Parameters, duration

EXPORTER = "site, job, instance"
SOURCE = f"{EXPORTER}, source"
BEAM = f"{EXPORTER}, case_id, beam_id, source"
"""Labels by which expressions join. Aggregations use ``without``: every label that a site gives its targets stays."""

_OF_ITS_EXPORTER = "site=%q,job=%q,instance=%q,source=%q"
_VALUES = "$labels.site $labels.job $labels.instance $labels.source"
"""Two sites may use the same case ids and source names: texts look up the alert's own exporter."""

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; its runbook is ``docs/runbooks/<name>.md``.

    Args:
        name: the name in Alertmanager.
        severity: ``critical``: somebody must act now; ``warning``: somebody must act today; ``info``: nobody must act.
        expression: PromQL with one result for each alert.
        summary: one line; a template in which Prometheus fills in labels and values.
        description: what has happened, with values, and what it means; a template, too.
        about: what the alert is about; this decides which dashboard it links to.
        for_seconds: how long the condition must hold before the alert fires.
        kept_seconds: how long the alert keeps firing after the condition ended.
    """

    name: str
    severity: Severity
    expression: str
    summary: str
    description: str
    about: Literal["beam", "source", "exporter"]
    for_seconds: int = 0
    kept_seconds: int = 0

    def rule(self, parameters: Parameters) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expression}
        if self.for_seconds:
            rule["for"] = duration(self.for_seconds)
        if self.kept_seconds:
            rule["keep_firing_for"] = duration(self.kept_seconds)
        return rule | {
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "dashboard_url": parameters.grafana_url.rstrip("/") + _DASHBOARDS[self.about],
                "runbook_url": f"{parameters.runbook_url.rstrip('/')}/{self.name}.md",
            },
        }


_DASHBOARDS = {
    "beam": "/d/mqi-case?var-case={{ $labels.case_id | urlquery }}&var-beam={{ $labels.beam_id | urlquery }}",
    "source": "/d/mqi-exporter?var-source={{ $labels.source | urlquery }}",
    "exporter": "/d/mqi-exporter",
}


def beam_value(metric: str, form: str = "value | humanize", where: str = "") -> str:
    """Return a template that fills in a metric of the alert's beam, or ``?`` if the beam does not have it."""
    selector = f"{metric}{{{_OF_ITS_EXPORTER},case_id=%q,beam_id=%q}}{where}"
    return (
        f"{{{{ with printf `{selector}` {_VALUES} $labels.case_id $labels.beam_id | query }}}}"
        f"{{{{ . | first | {form} }}}}{{{{ else }}}}?{{{{ end }}}}"
    )


def beams_of_source(states: str) -> str:
    """Return a template that counts the beams of the alert's source in these states."""
    selector = f'mqi_beams{{{_OF_ITS_EXPORTER},state=~"{states}"}}'
    return (
        f"{{{{ with printf `sum({selector})` {_VALUES} | query }}}}"
        "{{ . | first | value | humanize }} beam{{ if ne (. | first | value) 1.0 }}s{{ end }}"
        "{{ else }}0 beams{{ end }}"
    )


def with_noun(one: str, many: str) -> str:
    """Return a template for the alert's value with its noun: ``one`` after a 1, ``many`` after any other number."""
    return f"{{{{ $value | humanize }}}} {{{{ if eq $value 1.0 }}}}{one}{{{{ else }}}}{many}{{{{ end }}}}"
