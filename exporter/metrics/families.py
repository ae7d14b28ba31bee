"""What a metric is, apart from which metrics there are: a declaration that says how a thing's samples are made.

A thing is something to report: a beam, a source, the whole store. What a metric *reads* of a thing is told apart from
the samples made of it: while the one stays equal, the other need not be made again. Ten thousand beams have hundreds of
thousands of samples, and few of them change from one scrape to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Literal, TypeVar

from exporter.beams.snapshot import HistogramView, Summary

Thing = TypeVar("Thing")
Labels = tuple[tuple[str, str], ...]
"""Names of labels and their values, of any text that :func:`encodable` lets through."""
Point = tuple[str, Labels, float]
"""One sample: what follows the metric's name (``""``, ``_count``, ``_bucket`` ...), its labels besides the thing's own,
its value."""
Part = tuple[tuple[str, ...], float]
"""One of several samples of a thing: the values of the labels that tell them apart, and the value."""


@dataclass(frozen=True, slots=True)
class Definition(Generic[Thing]):
    """One metric: what it is called and means, and where its samples come from.

    Args:
        name: as in the text format, a counter's with ``_total``.
        kind: its type.
        labels: names of all labels, ``le`` aside.
        meaning: its help.
        read: what its samples are made of, hashable; equal values make the same samples.
        points: the samples made of that, told apart by labels or suffix; ``None`` where what is read is itself the one
            sample's value, or ``None`` for no sample.
        by_clock: whether what is read moves by time alone, while nothing else of the thing changes.
    """

    name: str
    kind: Literal["gauge", "counter", "summary", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    read: Callable[[Thing], Any]
    points: Callable[[Any], Iterable[Point]] | None = None
    by_clock: bool = False

    @property
    def names(self) -> frozenset[str]:
        """What it may be asked for by: its name, a counter's in OpenMetrics, and those of its samples."""
        family = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return frozenset({self.name, family, *(self.name + suffix for suffix in _SUFFIXES.get(self.kind, ()))})


_SUFFIXES = {"summary": ("_count", "_sum"), "histogram": ("_bucket", "_count", "_sum")}


def gauge(
    name: str,
    labels: tuple[str, ...],
    meaning: str,
    value: Callable[[Thing], float | None],
    *,
    by_clock: bool = False,
) -> Definition[Thing]:
    """A gauge with one sample per thing, left out where its value is ``None``."""
    return Definition(name, "gauge", labels, meaning, value, by_clock=by_clock)


def counter(
    name: str, labels: tuple[str, ...], meaning: str, value: Callable[[Thing], float | None]
) -> Definition[Thing]:
    """A counter with one sample per thing; its name ends in ``_total``."""
    return Definition(name, "counter", labels, meaning, value)


def gauge_by(
    name: str, labels: tuple[str, ...], by: tuple[str, ...], meaning: str, parts: Callable[[Thing], Iterable[Part]]
) -> Definition[Thing]:
    """A gauge with several samples per thing, told apart by the labels ``by``."""
    return Definition(name, "gauge", (*labels, *by), meaning, lambda thing: (*parts(thing),), _points_of_parts(by))


def counter_by(
    name: str, labels: tuple[str, ...], by: tuple[str, ...], meaning: str, parts: Callable[[Thing], Iterable[Part]]
) -> Definition[Thing]:
    """A counter with several samples per thing, told apart by the labels ``by``; its name ends in ``_total``."""
    return Definition(name, "counter", (*labels, *by), meaning, lambda thing: (*parts(thing),), _points_of_parts(by))


def one_of(
    name: str,
    labels: tuple[str, ...],
    by: str,
    meaning: str,
    choices: Iterable[str],
    chosen: Callable[[Thing], str],
) -> Definition[Thing]:
    """A gauge with a sample for each of ``choices`` in the label ``by``: 1 for the one that the thing is in, else 0."""
    points = {choice: tuple(("", ((by, each),), int(each == choice)) for each in choices) for choice in tuple(choices)}
    return Definition(name, "gauge", (*labels, by), meaning, chosen, points.__getitem__)


def summary(
    name: str, labels: tuple[str, ...], meaning: str, summary_of: Callable[[Thing], Summary]
) -> Definition[Thing]:
    """A summary without quantiles: how many, and their sum."""

    def points(observed: Summary) -> Iterator[Point]:
        yield "_count", (), observed.count
        yield "_sum", (), observed.total

    return Definition(name, "summary", labels, meaning, summary_of, points)


def histogram(
    name: str, labels: tuple[str, ...], meaning: str, histogram_of: Callable[[Thing], HistogramView]
) -> Definition[Thing]:
    """A histogram; the counts of its buckets add up here, as Prometheus wants them."""

    def points(observed: HistogramView) -> Iterator[Point]:
        bounds = [*(str(float(bound)) for bound in observed.bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(observed.counts), strict=True):
            yield "_bucket", (("le", bound),), count
        yield "_count", (), sum(observed.counts)
        yield "_sum", (), observed.total

    return Definition(name, "histogram", labels, meaning, histogram_of, points)


def encodable(text: str) -> str:
    """Text that UTF-8 can carry. Ids may come from file names of any bytes, which Python holds as lone surrogates.

    They become escapes and not one replacement character, so that two different ids stay two different series.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _points_of_parts(by: tuple[str, ...]) -> Callable[[Iterable[Part]], Iterator[Point]]:
    def points(parts: Iterable[Part]) -> Iterator[Point]:
        for values, number in parts:
            yield "", tuple(zip(by, map(encodable, values), strict=True)), number

    return points
