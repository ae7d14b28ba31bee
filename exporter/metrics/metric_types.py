"""How a metric is declared: the types of metrics, their samples and their labels.

:mod:`exporter.metrics.definitions` declares every metric of the exporter with these functions. An *item* is what a
metric describes: a beam, a source, the whole store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Literal, TypeVar

from exporter.beams.snapshot import HistogramView, Summary

Item = TypeVar("Item")
Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, such as ``(("case_id", "7001"), ("beam_id", "1"))``."""
Sample = tuple[str, Labels, float]
"""One sample: the suffix of the metric's name (such as ``_count``, or ``""``), labels besides the item's own, value."""
LabelledValue = tuple[tuple[str, ...], float]
"""One of several values of an item, with the label values that distinguish it."""

_SUFFIXES = {"summary": ("_count", "_sum"), "histogram": ("_bucket", "_count", "_sum")}


@dataclass(frozen=True, slots=True)
class Definition(Generic[Item]):
    """The declaration of one metric.

    Args:
        name: the name in the text format. The name of a counter ends in ``_total``.
        kind: the type.
        labels: the names of all labels but ``le``.
        help_text: what the metric means.
        read: reads from an item the hashable value that its samples are made of. Without ``samples`` it is the value of
            the item's only sample; ``None`` means no sample.
        samples: makes the samples from what ``read`` returned.
    """

    name: str
    kind: Literal["gauge", "counter", "summary", "histogram"]
    labels: tuple[str, ...]
    help_text: str
    read: Callable[[Item], Any]
    samples: Callable[[Any], Iterable[Sample]] | None = None

    @property
    def names(self) -> frozenset[str]:
        """All names that select this metric: its own, that of a counter in OpenMetrics, and those of its samples."""
        family = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return frozenset({self.name, family, *(self.name + suffix for suffix in _SUFFIXES.get(self.kind, ()))})


def format_labels(*labels: tuple[str, str]) -> str:
    """Return labels as both formats write them, without braces. Values may be any text."""
    return ",".join([f'{name}="{_escape(encodable(value))}"' for name, value in labels])


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def encodable(text: str) -> str:
    """Return the text with escapes for what UTF-8 cannot carry: bytes of file names that are not UTF-8.

    Each such byte gets its own escape, so that two different ids stay two different series.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def gauge(
    name: str, labels: tuple[str, ...], help_text: str, value: Callable[[Item], float | None]
) -> Definition[Item]:
    """Declare a gauge with one sample for each item whose value is not ``None``."""
    return Definition(name, "gauge", labels, help_text, value)


def counter(
    name: str, labels: tuple[str, ...], help_text: str, value: Callable[[Item], float | None]
) -> Definition[Item]:
    """Declare a counter with one sample for each item whose value is not ``None``."""
    return Definition(name, "counter", labels, help_text, value)


def gauge_by(
    name: str,
    labels: tuple[str, ...],
    by: tuple[str, ...],
    help_text: str,
    values: Callable[[Item], Iterable[LabelledValue]],
) -> Definition[Item]:
    """Declare a gauge with several samples for each item, distinguished by the labels ``by``."""
    return Definition(name, "gauge", (*labels, *by), help_text, lambda item: (*values(item),), _samples_by(by))


def counter_by(
    name: str,
    labels: tuple[str, ...],
    by: tuple[str, ...],
    help_text: str,
    values: Callable[[Item], Iterable[LabelledValue]],
) -> Definition[Item]:
    """Declare a counter with several samples for each item, distinguished by the labels ``by``."""
    return Definition(name, "counter", (*labels, *by), help_text, lambda item: (*values(item),), _samples_by(by))


def info(
    name: str,
    labels: tuple[str, ...],
    by: tuple[str, ...],
    help_text: str,
    label_values: Callable[[Item], tuple[str, ...] | None],
) -> Definition[Item]:
    """Declare a gauge that is always 1 and says something in the labels ``by``; no sample where that is ``None``."""
    samples = _samples_by(by)
    return Definition(
        name,
        "gauge",
        (*labels, *by),
        help_text,
        label_values,
        lambda values: () if values is None else samples([(values, 1)]),
    )


def one_of(
    name: str,
    labels: tuple[str, ...],
    by: str,
    help_text: str,
    choices: Iterable[str],
    chosen: Callable[[Item], str],
) -> Definition[Item]:
    """Declare a gauge with one sample for each of ``choices`` in the label ``by``: 1 for the item's choice, else 0."""
    samples = {choice: tuple(("", ((by, each),), int(each == choice)) for each in choices) for choice in tuple(choices)}
    return Definition(name, "gauge", (*labels, by), help_text, chosen, samples.__getitem__)


def summary(
    name: str, labels: tuple[str, ...], help_text: str, summary_of: Callable[[Item], Summary]
) -> Definition[Item]:
    """Declare a summary without quantiles: the number of observations and their sum."""

    def samples(observed: Summary) -> Iterator[Sample]:
        yield "_count", (), observed.count
        yield "_sum", (), observed.total

    return Definition(name, "summary", labels, help_text, summary_of, samples)


def histogram(
    name: str, labels: tuple[str, ...], help_text: str, histogram_of: Callable[[Item], HistogramView]
) -> Definition[Item]:
    """Declare a histogram. Its view counts each bucket alone; the samples are cumulative, as Prometheus wants them."""

    def samples(observed: HistogramView) -> Iterator[Sample]:
        bounds = [*(str(float(bound)) for bound in observed.bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(observed.counts), strict=True):
            yield "_bucket", (("le", bound),), count
        yield "_count", (), sum(observed.counts)
        yield "_sum", (), observed.total

    return Definition(name, "histogram", labels, help_text, histogram_of, samples)


def _samples_by(by: tuple[str, ...]) -> Callable[[Iterable[LabelledValue]], Iterator[Sample]]:
    def samples(values: Iterable[LabelledValue]) -> Iterator[Sample]:
        for label_values, number in values:
            yield "", tuple(zip(by, label_values, strict=True)), number

    return samples
