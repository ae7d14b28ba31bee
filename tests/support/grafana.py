"""Template variables of dashboards, filled in as Grafana 12 does for a Prometheus data source.

Read from its sources: ``packages/grafana-prometheus/src/escaping.ts`` and ``formatRegistry`` of @grafana/scenes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

ALL = "$__all"
_USE = re.compile(r"\$(?P<plain>\w+)|\$\{(?P<name>\w+)(?::(?P<format>\w+))?\}")


def interpolated(text: str, chosen: Mapping[str, str | list[str]], *, every: str = ".+") -> str:
    """A query as Grafana sends it.

    Args:
        text: with ``$name``, ``${name}`` or ``${name:format}``.
        chosen: what is chosen of each variable: a list where several may be, :data:`ALL` for the choice "All".
        every: what Grafana puts in for "All" (``allValue``), whatever the format.

    Raises:
        AssertionError: a variable or a format is unknown.
    """

    def value(use: re.Match[str]) -> str:
        name = use["plain"] or use["name"]
        if name.startswith("__"):
            return use[0]
        assert name in chosen, f"unknown variable in {text}"
        found = chosen[name]
        return every if found == ALL else _formatted(found, use["format"])

    return _USE.sub(value, text)


def _formatted(value: str | list[str], kind: str | None) -> str:
    each = value if isinstance(value, list) else [value]
    match kind:
        case None if isinstance(value, str):
            return value.replace("\\", "\\\\").replace("'", "\\\\'")
        case None:
            return _alternatives([_escaped(one, "\\\\") for one in each])
        case "regex":
            return _alternatives([_escaped(one, "\\") for one in each])
        case "raw":
            return ",".join(each)
        case "percentencode":
            return quote(",".join(each), safe="")
    raise AssertionError(f"unknown format {kind}")


def _escaped(text: str, escape: str) -> str:
    """A text as a regular expression that matches nothing else."""
    specials = re.compile(r"[\\^$*{}\[\]+?.()|]")
    return specials.sub(lambda found: escape * 2 if found[0] == "\\" else escape + found[0], text)


def _alternatives(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"({'|'.join(texts)})"


def link(url: str, row: Mapping[str, str]) -> str:
    """The address that a data link leads to from a row of a table.

    Args:
        url: the link as in the dashboard.
        row: the row's fields by name.
    """

    def value(use: re.Match[str]) -> str:
        field = row[use[1]]
        # Without a format, Grafana leaves what a whole address may hold: & + # and others.
        return quote(field, safe="" if use[2] == "percentencode" else ";/?:@&=+$,#-_.!~*'()")

    filled = re.sub(r"\$\{__data\.fields\.(\w+)(?::(\w+))?\}", value, url)
    filled = filled.replace("${datasource:queryparam}", "var-datasource=default")
    return filled.replace("${__url_time_range}", "from=a&to=b")
