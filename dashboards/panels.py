"""Panels: what grafanalib's classes lack for current versions of Grafana, and panels that several dashboards share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafanalib import core as grafana

from dashboards.queries import BEAM, STATE_CODES, count_in

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, BLUE, ORANGE, RED, PURPLE, GREY = "green", "blue", "orange", "red", "purple", "#8e8e8e"
_STATE_COLORS = {
    "waiting": GREY,
    "starting": "light-blue",
    "running": BLUE,
    "stalled": ORANGE,
    "expired": "dark-orange",
    "unreachable": PURPLE,
    "failed": RED,
    "succeeded": GREEN,
}

Json = dict[str, Any]
Steps = Sequence[tuple[float | None, str]]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel.

    Args:
        expression: PromQL.
        legend: the name of each series; may contain ``{{label}}``.
    """

    expression: str
    legend: str = "__auto"


def steps(*pairs: tuple[float | None, str]) -> list[Json]:
    """Return thresholds. Each colour applies from its value on; ``None`` is the lowest value."""
    return [{"value": value, "color": color} for value, color in pairs]


def state_mappings(*, coded: bool = False) -> list[Json]:
    """Return a colour for each state, or for the number of each state if ``coded``."""
    keys = {state: str(code) if coded else state for code, state in enumerate(STATE_CODES)}
    options = {
        keys[state]: {"text": state, "color": _STATE_COLORS[state], "index": index}
        for index, state in enumerate(STATE_CODES)
    }
    return [{"type": "value", "options": options}]


def _targets(queries: Iterable[Query], *, instant: bool = False, table: bool = False) -> list[grafana.Target]:
    return [
        grafana.Target(
            expr=query.expression,
            legendFormat=query.legend,
            refId=chr(ord("A") + number),
            instant=instant,
            format="table" if table else "time_series",
            datasource=DATA_SOURCE,
            intervalFactor=1,
        )
        for number, query in enumerate(queries)
    ]


def _common(title: str, about: str) -> Json:
    return {
        "title": title,
        "description": about,
        "dataSource": DATA_SOURCE,
        "maxDataPoints": None,
        "editable": False,
    }


class _Table(grafana.Table):  # type: ignore[misc]
    """A table without ``custom.displayMode``, which would override the options of the cells."""

    def to_json_data(self) -> Json:
        data: Json = super().to_json_data()
        data["fieldConfig"]["defaults"]["custom"].pop("displayMode", None)
        return data


class _BarGauge(grafana.BarGauge):  # type: ignore[misc]
    """A bar gauge without ``options.fieldOptions``, which would override unit, range and thresholds."""

    def to_json_data(self) -> Json:
        data: Json = super().to_json_data()
        data["options"].pop("fieldOptions", None)
        return data


def stat(
    title: str,
    about: str,
    query: Query,
    *,
    unit: str = "short",
    thresholds: Steps = ((None, BLUE),),
    mappings: list[Json] | None = None,
    none: str = "–",
    decimals: int | None = None,
    text_of: str | None = None,
) -> grafana.Stat:
    """Return a panel with one big number.

    Args:
        title: the title.
        about: the description.
        query: the expression.
        unit: the unit, as Grafana names it.
        thresholds: colours by value.
        mappings: texts and colours for certain values.
        none: the text to show when the query returns nothing.
        decimals: the number of decimals; automatic if not given.
        text_of: a label to show instead of the number.
    """
    return grafana.Stat(
        **_common(title, about),
        targets=_targets([query], instant=True, table=text_of is not None),
        format=unit,
        decimals=decimals,
        reduceCalc="lastNotNull",
        fields=f"/^{text_of}$/" if text_of else "",
        noValue=none,
        colorMode="value",
        graphMode="none",
        textMode="value",
        thresholds=steps(*thresholds),
        mappings=mappings or [],
    )


def lines(
    title: str,
    about: str,
    *queries: Query,
    unit: str,
    maximum: float | None = None,
    soft_maximum: int | None = None,
    thresholds: Steps = (),
    stacked: bool = False,
    none: str | None = None,
    dashed: str | None = None,
    dashed_in_legend: bool = True,
    legend_right: bool = False,
    decimals: int | None = None,
    colors: Mapping[str, str] | None = None,
) -> grafana.TimeSeries:
    """Return a panel with values over time.

    Args:
        title: the title.
        about: the description.
        queries: the expressions.
        unit: the unit, as Grafana names it.
        maximum: the end of the axis.
        soft_maximum: the axis reaches at least this value.
        thresholds: drawn as dashed lines.
        stacked: whether series are stacked.
        none: the text to show when the queries return nothing.
        dashed: a regular expression; series with matching names are drawn dashed.
        dashed_in_legend: ``False`` draws them grey and leaves them out of the legend.
        legend_right: whether the legend is a table beside the graph.
        decimals: the number of decimals; automatic if not given.
        colors: colours of series by name.
    """
    defaults: Json = {"min": 0}
    if maximum is not None:
        defaults["max"] = maximum
    if none is not None:
        defaults["noValue"] = none
    if decimals is not None:
        defaults["decimals"] = decimals
    overrides = []
    if dashed:
        style = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 6]}}
        properties: list[Json] = [style, {"id": "custom.lineWidth", "value": 1}]
        if not dashed_in_legend:
            properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": GREY}})
            properties.append({"id": "custom.hideFrom", "value": {"legend": True, "tooltip": False, "viz": False}})
        overrides.append({"matcher": {"id": "byRegexp", "options": dashed}, "properties": properties})
    for name, color in (colors or {}).items():
        fixed = {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}
        overrides.append({"matcher": {"id": "byName", "options": name}, "properties": [fixed]})
    return grafana.TimeSeries(
        **_common(title, about),
        targets=_targets(queries),
        unit=unit,
        lineWidth=2,
        fillOpacity=25 if stacked else 0,
        axisSoftMax=None if maximum is not None else soft_maximum,
        showPoints="never",
        spanNulls=False,
        stacking={"mode": "normal", "group": "A"} if stacked else {},
        tooltipMode="multi",
        legendDisplayMode="table" if legend_right else "list",
        legendPlacement="right" if legend_right else "bottom",
        legendCalcs=["lastNotNull"] if legend_right else [],
        thresholds=steps(*((None, "transparent"), *thresholds) if thresholds else ((None, GREEN),)),
        thresholdsStyleMode="dashed" if thresholds else "off",
        overrides=overrides,
        extraJson={"fieldConfig": {"defaults": defaults}},
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        name: the heading.
        field: a label, or a :class:`Query` whose value the column shows.
        width: in pixels; 0 takes the remaining space.
        unit: the unit, as Grafana names it.
        decimals: the number of decimals.
        properties: further properties of the field.
        hidden: the column is not shown; its query only adds labels to the rows.
    """

    name: str
    field: str | Query
    width: int
    unit: str | None = None
    decimals: int | None = None
    properties: tuple[tuple[str, Any], ...] = ()
    hidden: bool = False


def table(
    title: str,
    about: str,
    columns: Sequence[Column],
    *,
    sort_by: str,
    descending: bool = False,
) -> grafana.Table:
    """Return a table with one row for each set of labels.

    Args:
        title: the title.
        about: the description.
        columns: the columns from left to right. The results of their queries are joined by their labels.
        sort_by: the heading of the column to sort by.
        descending: whether the highest value comes first.
    """
    queries = [column.field for column in columns if isinstance(column.field, Query)]
    shown: dict[str, str] = {}
    hidden = dict.fromkeys(("Time", "__name__", "job", "instance", "case_id", "beam_id", "source"), True)
    for column in columns:
        field = column.field
        if isinstance(field, Query):
            field = "Value" if len(queries) == 1 else f"Value #{chr(ord('A') + queries.index(field))}"
        if column.hidden:
            hidden |= {field: True, "Value #A": True} if field == "Value" else {field: True}
        else:
            shown[field] = column.name
            hidden.pop(field, None)
    overrides = []
    for column in columns:
        if column.hidden:
            continue
        properties: list[Json] = [{"id": "custom.width", "value": column.width}] if column.width else []
        # A label is text. Without a unit, Grafana would show and link an id like 04010004 or 7.1 as a number.
        unit = column.unit or (None if isinstance(column.field, Query) else "string")
        if unit:
            properties.append({"id": "unit", "value": unit})
        if column.decimals is not None:
            properties.append({"id": "decimals", "value": column.decimals})
        properties += [{"id": key, "value": value} for key, value in column.properties]
        overrides.append({"matcher": {"id": "byName", "options": column.name}, "properties": properties})
    return _Table(
        **_common(title, about),
        targets=_targets(queries, instant=True, table=True),
        unit="none",
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": hidden,
                    "indexByName": {field: index for index, field in enumerate(shown)},
                    "renameByName": shown,
                },
            },
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": sort_by, "desc": descending}]}},
        ],
        overrides=overrides,
        # Shown in every empty cell, and alone if the table has no rows.
        extraJson={"fieldConfig": {"defaults": {"noValue": "–"}}},
    )


STATE_CELL = (("mappings", state_mappings()), ("custom.cellOptions", {"type": "color-text"}))
PROGRESS_CELL = (
    ("min", 0),
    ("max", 1),
    ("custom.cellOptions", {"type": "gauge", "mode": "gradient", "valueDisplayMode": "text"}),
    ("color", {"mode": "fixed", "fixedColor": BLUE}),
)


def case_link(title: str = "This beam in its case") -> tuple[str, Any]:
    """Return a link for a column, from a beam to its case's dashboard."""
    beam = "var-case=${__data.fields.Case:percentencode}&var-beam=${__data.fields.Beam:percentencode}"
    url = f"/d/mqi-case?{beam}&${{datasource:queryparam}}"
    return ("links", [{"title": title, "url": f"{url}&${{__url_time_range}}"}])


def bars(title: str, about: str, query: Query, *, unit: str, maximum: float | None, thresholds: Steps) -> _BarGauge:
    """Return a panel with a horizontal bar for the newest value of each series."""
    defaults: Json = {
        "unit": unit,
        "min": 0,
        "decimals": 0,
        "noValue": "None",
        "thresholds": {"mode": "absolute", "steps": steps(*thresholds)},
    }
    if maximum is not None:
        defaults["max"] = maximum
    return _BarGauge(
        **_common(title, about),
        targets=_targets([query], instant=True),
        extraJson={
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "orientation": "horizontal",
                "displayMode": "basic",
                "showUnfilled": True,
                "valueMode": "color",
                "namePlacement": "left",
                "minVizHeight": 20,
                "maxVizHeight": 28,
                "text": {"titleSize": 13, "valueSize": 15},
            },
        },
    )


def timeline(title: str, about: str, query: Query) -> grafana.StateTimeline:
    """Return a panel with the states of beams over time, as numbers of :data:`dashboards.queries.STATE_CODES`."""
    return grafana.StateTimeline(
        **_common(title, about),
        targets=_targets([query]),
        mappings=state_mappings(coded=True),
        colorMode="thresholds",
        lineWidth=0,
        fillOpacity=75,
        showValue="auto",
        extraJson={"fieldConfig": {"defaults": {"unit": "none"}}},
    )


def beams_in(
    states: str, title: str, description: str, color: str, none: str = GREEN, selector: str = BEAM
) -> grafana.Stat:
    """Return a panel that counts the beams in these states; ``none`` is its colour while the count is 0."""
    return stat(title, description, Query(count_in(states, selector)), thresholds=((None, none), (1, color)))
