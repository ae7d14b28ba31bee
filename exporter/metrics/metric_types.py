"""What a metric is, apart from which metrics there are: a declaration that says how an item's samples are made.

An item is something to report: a beam, a source, the whole store. What a metric *reads* of an item is told apart from
the samples made of it: while the one stays equal, the other need not be made again. Ten thousand beams have hundreds of
thousands of samples, and few of them change from one scrape to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Literal, TypeVar

from exporter.beams.snapshot import HistogramView, Summary

Item = TypeVar("Item")
Labels = tuple[tuple[str, str], ...]
"""Names of labels and their values, of any text that :func:`encodable` lets through."""
Sample = tuple[str, Labels, float]
"""One sample: what follows the metric's name (``""``, ``_count``, ``_bucket`` ...), its labels besides the item's own,
its value."""
LabelledValue = tuple[tuple[str, ...], float]
"""One of several samples of an item: the values of the labels that tell them apart, and the value."""


@dataclass(frozen=True, slots=True)
class Definition(Generic[Item]):
    """One metric: what it is called and means, and where its samples come from.

    Args:
        name: as in the text format, a counter's with ``_total``.
        kind: its type.
        labels: names of all labels, ``le`` aside.
        help_text: its help.
        read: what its samples are made of, hashable; equal values make the same samples.
        samples: the samples made of that, told apart by labels or suffix; ``None`` where what is read is itself the one
            sample's value, or ``None`` for no sample.
        by_clock: whether what is read moves by time alone, while nothing else of the item changes.
    """

    name: str
    kind: Literal["gauge", "counter", "summary", "histogram"]
    labels: tuple[str, ...]
    help_text: str
    read: Callable[[Item], Any]
    samples: Callable[[Any], Iterable[Sample]] | None = None
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
    help_text: str,
    value: Callable[[Item], float | None],
    *,
    by_clock: bool = False,
) -> Definition[Item]:
    """A gauge with one sample per item, left out where its value is ``None``."""
    return Definition(name, "gauge", labels, help_text, value, by_clock=by_clock)


def counter(
    name: str, labels: tuple[str, ...], help_text: str, value: Callable[[Item], float | None]
) -> Definition[Item]:
    """A counter with one sample per item; its name ends in ``_total``."""
    return Definition(name, "counter", labels, help_text, value)


def gauge_by(
    name: str,
    labels: tuple[str, ...],
    by: tuple[str, ...],
    help_text: str,
    parts: Callable[[Item], Iterable[LabelledValue]],
) -> Definition[Item]:
    """A gauge with several samples per item, told apart by the labels ``by``."""
    return Definition(name, "gauge", (*labels, *by), help_text, lambda item: (*parts(item),), _points_of_parts(by))


def counter_by(
    name: str,
    labels: tuple[str, ...],
    by: tuple[str, ...],
    help_text: str,
    parts: Callable[[Item], Iterable[LabelledValue]],
) -> Definition[Item]:
    """A counter with several samples per item, told apart by the labels ``by``; its name ends in ``_total``."""
    return Definition(name, "counter", (*labels, *by), help_text, lambda item: (*parts(item),), _points_of_parts(by))


def one_of(
    name: str,
    labels: tuple[str, ...],
    by: str,
    help_text: str,
    choices: Iterable[str],
    chosen: Callable[[Item], str],
) -> Definition[Item]:
    """A gauge with a sample for each of ``choices`` in the label ``by``: 1 for the one that the item is in, else 0."""
    samples = {choice: tuple(("", ((by, each),), int(each == choice)) for each in choices) for choice in tuple(choices)}
    return Definition(name, "gauge", (*labels, by), help_text, chosen, samples.__getitem__)


def summary(
    name: str, labels: tuple[str, ...], help_text: str, summary_of: Callable[[Item], Summary]
) -> Definition[Item]:
    """A summary without quantiles: how many, and their sum."""

    def samples(observed: Summary) -> Iterator[Sample]:
        yield "_count", (), observed.count
        yield "_sum", (), observed.total

    return Definition(name, "summary", labels, help_text, summary_of, samples)


def histogram(
    name: str, labels: tuple[str, ...], help_text: str, histogram_of: Callable[[Item], HistogramView]
) -> Definition[Item]:
    """A histogram; the counts of its buckets add up here, as Prometheus wants them."""

    def samples(observed: HistogramView) -> Iterator[Sample]:
        bounds = [*(str(float(bound)) for bound in observed.bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(observed.counts), strict=True):
            yield "_bucket", (("le", bound),), count
        yield "_count", (), sum(observed.counts)
        yield "_sum", (), observed.total

    return Definition(name, "histogram", labels, help_text, histogram_of, samples)


def encodable(text: str) -> str:
    """Text that UTF-8 can carry. Ids may come from file names of any bytes, which Python holds as lone surrogates.

    They become escapes and not one replacement character, so that two different ids stay two different series.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _points_of_parts(by: tuple[str, ...]) -> Callable[[Iterable[LabelledValue]], Iterator[Sample]]:
    def samples(parts: Iterable[LabelledValue]) -> Iterator[Sample]:
        for values, number in parts:
            yield "", tuple(zip(by, map(encodable, values), strict=True)), number

    return samples
