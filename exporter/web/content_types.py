"""In which format a scraper gets the metrics: ``Accept``, as RFC 9110 (12.5.1) has it.

The client library's own reading of it hears ``q=0``, which is a no, as a yes, takes the first format that it knows
whatever the weights are, and calls its answer by any version that it is asked for.
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


@dataclass(frozen=True, slots=True)
class Format:
    """A format of metrics.

    Args:
        media_type: without parameters.
        version: of the format.
        names_escaped: whether the format says how names are escaped. Ours need no escaping.
    """

    media_type: str
    version: str
    names_escaped: bool = False

    @property
    def openmetrics(self) -> bool:
        """Whether it is OpenMetrics, and not Prometheus' text format."""
        return self.media_type == _OPENMETRICS


PLAIN = Format(_TEXT, "0.0.4")
"""What everybody gets who asks for nothing that there is."""

FORMATS = (
    PLAIN,
    Format(_OPENMETRICS, "1.0.0", names_escaped=True),
    Format(_OPENMETRICS, "0.0.1"),
    Format(_TEXT, "1.0.0", names_escaped=True),
)
"""Every format that there is, most wanted first."""


@dataclass(frozen=True, slots=True)
class _Range:
    """One element of ``Accept``."""

    place: int
    media_type: str
    version: str | None
    escaping: str | None
    weight: float

    def precision(self, offered: Format) -> int:
        """How exactly it means a format; 0 where it does not."""
        if self.version is not None:
            return 4 if (self.media_type, self.version) == (offered.media_type, offered.version) else 0
        if self.media_type == offered.media_type:
            return 3
        if self.media_type == f"{offered.media_type.partition('/')[0]}/*":
            return 2
        return int(self.media_type == "*/*")


def content_type(headers: Headers) -> tuple[str, bool]:
    """The content type of an answer to these headers.

    Args:
        headers: the request's. An element's weight decides, and at equal weights its place; a weight that is none
            counts as 1. Of a format that several elements mean, the most exact one speaks.

    Returns:
        The content type, and whether it is OpenMetrics.
    """
    ranges = list(_ranges(headers.getlist("accept")))
    best: tuple[float, int, int] | None = None
    chosen, chosen_by = PLAIN, None
    for preference, offered in enumerate(FORMATS):
        meant = [each for each in ranges if each.precision(offered)]
        if not meant:
            continue
        by = max(meant, key=lambda each: (each.precision(offered), -each.place))
        rank = (-by.weight, by.place, preference)
        if by.weight > 0 and (best is None or rank < best):
            best, chosen, chosen_by = rank, offered, by
    said = f"{chosen.media_type}; version={chosen.version}; charset=utf-8"
    if chosen.names_escaped and chosen_by is not None and chosen_by.version is not None:
        # Names of ours are the same in every way of escaping but one, and who asks for that is told that it is not so.
        said += f"; escaping={_UTF8_NAMES if chosen_by.escaping == _UTF8_NAMES else 'underscores'}"
    return said, chosen.openmetrics


def _ranges(lines: Iterable[str]) -> Iterable[_Range]:
    for place, element in enumerate(",".join(lines).split(",")):
        media_type, *parameters = (part.strip(" \t") for part in element.split(";"))
        named: dict[str, str] = {}
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            named.setdefault(name.strip(" \t").lower(), value.strip(' \t"'))
        weight = named.get("q", "1")
        yield _Range(
            place,
            media_type.lower(),
            named.get("version"),
            named.get("escaping"),
            float(weight) if _WEIGHT.fullmatch(weight) else 1.0,
        )
