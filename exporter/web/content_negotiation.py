"""Content negotiation: reads ``Accept`` and ``Accept-Encoding`` as RFC 9110 (12.5.1 and 12.5.3) defines them.

The Prometheus client library has functions for this, but they read ``q=0``, which refuses a format, as an acceptance,
ignore all other weights, and answer with any version that the client names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers

_OPENMETRICS = "application/openmetrics-text"
_TEXT = "text/plain"
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_UTF8_NAMES = "allow-utf-8"
_GZIP = ("gzip", "x-gzip")
_ZERO_WEIGHT = re.compile(r"[ \t]*q=0(?:\.0{0,3})?[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Format:
    """A format of metrics that we can write.

    Args:
        media_type: without parameters.
        version: the version of the format.
        names_escaped: whether the content type says how names are escaped. Our names need no escaping.
    """

    media_type: str
    version: str
    names_escaped: bool = False

    @property
    def openmetrics(self) -> bool:
        """Whether this is OpenMetrics; otherwise it is Prometheus' text format."""
        return self.media_type == _OPENMETRICS


PLAIN = Format(_TEXT, "0.0.4")
"""The default, for clients that accept none of our formats."""

FORMATS = (
    PLAIN,
    Format(_OPENMETRICS, "1.0.0", names_escaped=True),
    Format(_OPENMETRICS, "0.0.1"),
    Format(_TEXT, "1.0.0", names_escaped=True),
)
"""All formats that we can write, in the order of our preference."""


@dataclass(frozen=True, slots=True)
class _MediaRange:
    """One element of ``Accept``; ``position`` counts from the left."""

    position: int
    media_type: str
    version: str | None
    escaping: str | None
    weight: float

    def precision(self, offered: Format) -> int:
        """Return how exactly this element matches a format; 0 where it does not."""
        if self.version is not None:
            return 4 if (self.media_type, self.version) == (offered.media_type, offered.version) else 0
        if self.media_type == offered.media_type:
            return 3
        if self.media_type == f"{offered.media_type.partition('/')[0]}/*":
            return 2
        return int(self.media_type == "*/*")


def content_type(headers: Headers) -> tuple[str, bool]:
    """Choose the format of the metrics from ``Accept``.

    The most precise element that matches a format decides its weight. The format with the highest weight wins; at equal
    weights, the one that comes first in ``Accept``. A malformed weight counts as 1.

    Args:
        headers: the headers of the request.

    Returns:
        The content type of the answer, and whether it is OpenMetrics.
    """
    ranges = list(_media_ranges(headers.getlist("accept")))
    best: tuple[float, int, int] | None = None
    chosen, chosen_by = PLAIN, None
    for preference, offered in enumerate(FORMATS):
        matching = [each for each in ranges if each.precision(offered)]
        if not matching:
            continue
        by = max(matching, key=lambda each: (each.precision(offered), -each.position))
        rank = (-by.weight, by.position, preference)
        if by.weight > 0 and (best is None or rank < best):
            best, chosen, chosen_by = rank, offered, by
    result = f"{chosen.media_type}; version={chosen.version}; charset=utf-8"
    if chosen.names_escaped and chosen_by is not None and chosen_by.version is not None:
        # Our names are the same in all schemes but "values"; a client that asks for that one gets "underscores".
        result += f"; escaping={_UTF8_NAMES if chosen_by.escaping == _UTF8_NAMES else 'underscores'}"
    return result, chosen.openmetrics


def gzip_accepted(headers: Headers) -> bool:
    """Return whether ``Accept-Encoding`` allows gzip.

    An element that names gzip counts more than ``*``, and an acceptance counts more than a refusal. Only a well-formed
    weight of 0 refuses.
    """
    by_name, by_star = list[bool](), list[bool]()
    for element in ",".join(headers.getlist("accept-encoding")).split(","):
        coding, *parameters = element.split(";")
        name = coding.strip(" \t").lower()
        if name in _GZIP or name == "*":
            accepted = not any(_ZERO_WEIGHT.fullmatch(each) for each in parameters)
            (by_star if name == "*" else by_name).append(accepted)
    return any(by_name or by_star)


def _media_ranges(lines: Iterable[str]) -> Iterable[_MediaRange]:
    for position, element in enumerate(",".join(lines).split(",")):
        media_type, *parameters = (part.strip(" \t") for part in element.split(";"))
        values: dict[str, str] = {}
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            values.setdefault(name.strip(" \t").lower(), value.strip(' \t"'))
        weight = values.get("q", "1")
        yield _MediaRange(
            position,
            media_type.lower(),
            values.get("version"),
            values.get("escaping"),
            float(weight) if _WEIGHT.fullmatch(weight) else 1.0,
        )
