"""Comma-separated values of what the API shows, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from exporter.web.api_schema import Fields, Json
from exporter.web.responses import cacheable_response

CSV_TYPE = "text/csv; charset=utf-8"


def to_csv(fields: Fields[Any], rendered: Iterable[Json]) -> str:
    """Return objects of the API as CSV with a header.

    Args:
        fields: the columns.
        rendered: one object per row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _for_spreadsheet(value) for name, value in each.items()} for each in rendered)
    return text.getvalue()


def csv_response(request: Request, name: str, fields: Fields[Any], rendered: Iterable[Json]) -> Response:
    """Return CSV as a file to save.

    Args:
        request: the request.
        name: of the file, without ending.
        fields, rendered: see :func:`to_csv`.
    """
    response = cacheable_response(request, to_csv(fields, rendered).encode(), CSV_TYPE)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def _for_spreadsheet(value: Any) -> Any:
    """Escape a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
