"""What a metric is, apart from which metrics there are: a declaration that fills a Prometheus metric family.

A declaration reads its samples from *items*: pairs of something to report (a beam, a source, the whole board) and the
labels that this thing has in every metric. The labels of a thing are one dictionary, shared by all its samples:
ten thousand beams have hundreds of thousands of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, Literal, TypeVar

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from exporter.beams.snapshot import HistogramView, Summary

Labels = dict[str, str]
Thing = TypeVar("Thing")
Items = Iterable[tuple[Thing, Labels]]
Point = tuple[str, Labels, float]
"""One sample: what follows the metric's name (``""``, ``_count``, ``_bucket`` ...), its labels, its value."""
Part = tuple[tuple[str, ...], float]
"""One of several samples of a thing: the values of the labels that tell them apart, and the value."""


@dataclass(frozen=True, slots=True)
class Definition(Generic[Thing]):
    """One metric: what it is called and means, and how its samples are read from items."""

    name: str
    kind: Literal["gauge", "counter", "summary", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    points: Callable[[Items[Thing]], Iterable[Point]]

    def empty_family(self) -> Metric:
        """The family without samples."""
        # A counter's family is named without _total: OpenMetrics wants it so, the text format adds it again.
        name = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return Metric(name, self.meaning, self.kind)

    def family(self, items: Items[Thing]) -> Metric:
        """The family with the samples of all items."""
        family, name = self.empty_family(), self.name
        family.samples = [Sample(name + suffix, labels, value) for suffix, labels, value in self.points(items)]
        return family


def gauge(
    name: str, labels: tuple[str, ...], meaning: str, value: Callable[[Thing], float | None]
) -> Definition[Thing]:
    """A gauge with one sample per thing, left out where its value is ``None``."""
    return Definition(name, "gauge", labels, meaning, lambda items: _values(items, value))


def counter(
    name: str, labels: tuple[str, ...], meaning: str, value: Callable[[Thing], float | None]
) -> Definition[Thing]:
    """A counter with one sample per thing; its name ends in ``_total``."""
    return Definition(name, "counter", labels, meaning, lambda items: _values(items, value))


def gauge_by(
    name: str, labels: tuple[str, ...], by: tuple[str, ...], meaning: str, parts: Callable[[Thing], Iterable[Part]]
) -> Definition[Thing]:
    """A gauge with several samples per thing, told apart by the labels ``by``."""
    return Definition(name, "gauge", (*labels, *by), meaning, lambda items: _parts(items, by, parts))


def counter_by(
    name: str, labels: tuple[str, ...], by: tuple[str, ...], meaning: str, parts: Callable[[Thing], Iterable[Part]]
) -> Definition[Thing]:
    """A counter with several samples per thing, told apart by the labels ``by``; its name ends in ``_total``."""
    return Definition(name, "counter", (*labels, *by), meaning, lambda items: _parts(items, by, parts))


def summary(
    name: str, labels: tuple[str, ...], meaning: str, summary_of: Callable[[Thing], Summary]
) -> Definition[Thing]:
    """A summary without quantiles: how many, and their sum."""

    def points(items: Items[Thing]) -> Iterator[Point]:
        for thing, own_labels in items:
            observed = summary_of(thing)
            yield "_count", own_labels, observed.count
            yield "_sum", own_labels, observed.total

    return Definition(name, "summary", labels, meaning, points)


def histogram(
    name: str, labels: tuple[str, ...], meaning: str, histogram_of: Callable[[Thing], HistogramView]
) -> Definition[Thing]:
    """A histogram; the counts of its buckets add up here, as Prometheus wants them."""

    def points(items: Items[Thing]) -> Iterator[Point]:
        for thing, own_labels in items:
            observed = histogram_of(thing)
            bounds = [*(str(float(bound)) for bound in observed.bounds), "+Inf"]
            for bound, count in zip(bounds, accumulate(observed.counts), strict=True):
                yield "_bucket", {**own_labels, "le": bound}, count
            yield "_count", own_labels, sum(observed.counts)
            yield "_sum", own_labels, observed.total

    return Definition(name, "histogram", labels, meaning, points)


def encodable(text: str) -> str:
    """Text that UTF-8 can carry. Ids may come from file names of any bytes, which Python holds as lone surrogates.

    They become escapes and not one replacement character, so that two different ids stay two different series.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _values(items: Items[Thing], value: Callable[[Thing], float | None]) -> Iterator[Point]:
    for thing, labels in items:
        number = value(thing)
        if number is not None:
            yield "", labels, number


def _parts(items: Items[Thing], by: tuple[str, ...], parts: Callable[[Thing], Iterable[Part]]) -> Iterator[Point]:
    for thing, labels in items:
        for values, number in parts(thing):
            yield "", labels | dict(zip(by, map(encodable, values), strict=True)), number
