"""Builds dashboards for current versions of Grafana from the classes of grafanalib.

grafanalib 0.7.1 writes the JSON of Grafana 4 to 8. It adds defaults that spoil a panel (100 data points, thresholds as
texts), old settings that override the new ones, and keys that nothing reads. The functions of
:mod:`dashboards.panels` set what grafanalib lacks, and :func:`finish` removes what is old.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grafanalib import core as grafana
from grafanalib._gen import DashboardEncoder

from dashboards.panels import DATA_SOURCE, ORANGE, RED, Json

SCHEMA_VERSION = 41
_COLUMNS = 24

Panel = Any
"""Any panel of grafanalib; its classes share no useful type."""


def rows(*bands: tuple[str | None, int, Sequence[tuple[Panel, int]]]) -> list[Panel]:
    """Place panels in rows from top to bottom.

    Args:
        bands: for each row its heading (or ``None``), its height, and its panels with their widths.

    Returns:
        All panels with their positions.

    Raises:
        ValueError: the widths of a row do not add up to 24.
    """
    placed: list[Panel] = []
    y = 0
    for heading, height, panels in bands:
        if heading is not None:
            placed.append(grafana.RowPanel(title=heading, gridPos=grafana.GridPos(h=1, w=_COLUMNS, x=0, y=y)))
            y += 1
        if sum(width for _, width in panels) != _COLUMNS:
            raise ValueError(f"the panels below {heading!r} are not {_COLUMNS} wide together")
        x = 0
        for panel, width in panels:
            panel.gridPos = grafana.GridPos(h=height, w=width, x=x, y=y)
            placed.append(panel)
            x += width
        y += height
    return placed


def variable(name: str, label: str, query: str, *, multi: bool = True, hidden: bool = False) -> grafana.Template:
    """Return a variable with the values of a label. At first all values are chosen, or one if not ``multi``."""
    every: Json = {"multi": True, "includeAll": True, "allValue": ".+", "default": "$__all"} if multi else {}
    return grafana.Template(
        name=name,
        label=label,
        query=query,
        dataSource=DATA_SOURCE,
        type="query",
        refresh=grafana.REFRESH_ON_TIME_RANGE_CHANGE,
        sort=grafana.SORT_ALPHA_ASC,
        hide=grafana.HIDE_VARIABLE if hidden else grafana.SHOW,
        **every,
    )


def exporters(*, hidden: bool) -> list[grafana.Template]:
    """Return the variables ``job`` and ``instance``, for sites with several exporters."""
    return [
        variable("job", "Job", "label_values(mqi_exporter_build_info, job)", hidden=hidden),
        variable("instance", "Instance", 'label_values(mqi_exporter_build_info{job=~"$job"}, instance)', hidden=hidden),
    ]


def annotation(name: str, color: str, expression: str, title: str, text: str) -> Json:
    """Return an annotation at a time that is the value of an expression.

    Args:
        name: the name of the annotation.
        color: its colour.
        expression: PromQL; its value is the time in epoch milliseconds.
        title: may contain ``{{label}}``.
        text: may contain ``{{label}}``.
    """
    return {
        "name": name,
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "target": {"refId": "Annotation", "expr": expression, "interval": "60s"},
        "useValueForTime": "on",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "source",
    }


def failures_and_stalls(selector: str) -> list[Json]:
    """Return annotations for failures and stalls, which an operator looks for first."""

    def since(state: str) -> str:
        began = f"1000 * mqi_beam_state_since_timestamp_seconds{{{selector}}}"
        return f'{began} and on (job, instance, case_id, beam_id) mqi_beam_state{{{selector}, state="{state}"}} == 1'

    return [
        annotation("Failures", RED, since("failed"), "Failed", "{{case_id}} {{beam_id}} on {{source}}"),
        annotation("Stalls", ORANGE, since("stalled"), "Stalled", "{{case_id}} {{beam_id}} on {{source}}"),
    ]


def dashboard(
    uid: str,
    title: str,
    about: str,
    *,
    variables: Sequence[grafana.Template],
    annotations: Sequence[Json],
    panels: Sequence[Panel],
    refresh: str = "10s",
    since: str = "now-3h",
) -> Json:
    """Return the JSON of a dashboard."""
    source = grafana.Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default="default"
    )
    built = grafana.Dashboard(
        title=title,
        uid=uid,
        description=about,
        tags=["mqi"],
        editable=False,
        schemaVersion=SCHEMA_VERSION,
        timezone="browser",
        refresh=refresh,
        time=grafana.Time(since, "now"),
        graphTooltip=grafana.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        templating=grafana.Templating(list=[source, *variables]),
        annotations=grafana.Annotations(list=list(annotations)),
        links=[
            grafana.DashboardLink(
                title="MQI dashboards", type="dashboards", tags=["mqi"], asDropdown=True, includeVars=True
            )
        ],
        panels=list(panels),
    ).auto_panel_ids()
    return finish(built)


_OLD_IN_DASHBOARD = ("__inputs", "hideControls", "rows", "sharedCrosshair", "style", "gnetId")
_OLD_IN_PANEL = (
    *("editable", "error", "height", "span", "minSpan", "cacheTimeout", "hideTimeOverride", "color", "columns"),
    *("fontSize", "mappings"),
)
_NOT_IN_ROW = ("fieldConfig", "links", "maxDataPoints", "targets", "transformations", "transparent", "datasource")
_OLD_IN_TARGET = ("query", "target", "metric", "step")
_OLD_IN_VARIABLE = ("auto", "auto_count", "auto_min", "useTags", "tagsQuery", "tagValuesQuery")


def finish(built: grafana.Dashboard) -> Json:
    """Return the JSON without what grafanalib adds for Grafana 4 to 8."""
    data: Json = json.loads(json.dumps(built.to_json_data(), cls=DashboardEncoder))
    _drop(data, _OLD_IN_DASHBOARD)
    _drop(data["timepicker"], ("time_options",))
    for each in data["templating"]["list"]:
        _drop(each, _OLD_IN_VARIABLE)
        chosen = each.get("current") or {}
        chosen.pop("tags", None)
        if chosen.get("value") == "$__all":
            each["current"] = {"text": "All", "value": ["$__all"]}
        elif each["type"] == "query":
            each["current"] = {}
    for panel in data["panels"]:
        _drop(panel, (*_OLD_IN_PANEL, *(_NOT_IN_ROW if panel["type"] == "row" else ())))
        for target in panel.get("targets", ()):
            _drop(target, _OLD_IN_TARGET)
        _drop(panel.get("fieldConfig", {}).get("defaults", {}), ("calcs", "values", "limit", "override", "title"))
        if panel["type"] == "bargauge":
            _drop(panel["options"], ("showThresholdLabels", "showThresholdMarkers"))
            _drop(panel["fieldConfig"], ("showThresholdLabels", "showThresholdMarkers"))
    cleaned: Json = _without_nulls(data)
    return cleaned | {"id": None}


def _drop(data: Json, keys: Iterable[str]) -> None:
    for key in keys:
        data.pop(key, None)


def _without_nulls(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _without_nulls(value) for key, value in data.items() if value is not None or key == "value"}
    if isinstance(data, list):
        return [_without_nulls(value) for value in data]
    return data
