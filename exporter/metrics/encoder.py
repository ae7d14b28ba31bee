"""Encodes metrics in the two text formats that Prometheus reads.

Both formats want all samples of a metric together, so the encoder works on one metric of all items at a time: on a
column of values. 10 000 beams have 290 000 lines, of which most are the same at the next scrape. So
:class:`MetricsEncoder` keeps the lines of each metric together with the values that they were made of, and makes them
again only if a value has changed. :func:`encode_samples` is the encoder without that cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic

from isal import isal_zlib

from exporter.metrics.metric_types import Definition, Item, Sample, format_labels

_LARGEST_EXACT = 2**53
_ITEMS_AT_ONCE = 1000
"""Limits the memory in use while the lines of many beams are made."""
_GZIP_LEVEL = 1
"""isal compresses these texts as well at level 1 as at its highest level, and ten times as fast as zlib."""
_GZIP_BYTES = 1 << 16
"""Less text than this is compressed in one go: isal makes short streams of many chunks three times as large."""


@dataclass(frozen=True, slots=True)
class MetricGroup(Generic[Item]):
    """Items of one kind, such as all beams, and the metrics that each of them has.

    Args:
        metrics: the metrics.
        items: what the metrics read.
        labels: the labels of each item, in the order of ``items``, as text without braces. Either all items have labels
            or none has.
    """

    metrics: Sequence[Definition[Item]]
    items: Sequence[Item]
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class _EncodedMetric:
    """The lines of a metric, and what they were made of."""

    labels: Sequence[str]
    values: Sequence[Any]
    lines: Sequence[bytes]


class MetricsEncoder:
    """Encodes what ``/metrics`` shows. Safe to use from several threads.

    Args:
        collectors: each is called once for each scrape and returns its groups, all from one moment.
    """

    def __init__(self, *collectors: Callable[[], Iterable[MetricGroup[Any]]]) -> None:
        self._collectors = collectors
        self._encoded: dict[str, _EncodedMetric] = {}

    def encode(self, *, openmetrics: bool, names: Container[str] | None = None) -> Iterator[bytes]:
        """Encode one scrape.

        Args:
            openmetrics: write OpenMetrics 1.0.0 instead of the text format 0.0.4. The end mark ``# EOF`` is the
                caller's: more metrics may follow.
            names: encode only the metrics with these names; ``None`` means all.

        Yields:
            The header of a metric, then its lines in one or more chunks, and so on. The caller can compress each chunk
            at once, so that the whole text, 29 MB for 10 000 beams, is never in memory twice.
        """
        for group in chain.from_iterable(collect() for collect in self._collectors):
            for metric in group.metrics:
                if names is None or metric.name in names:
                    lines = self._encode_or_reuse(metric, group)
                    if lines:
                        yield encode_header(metric, openmetrics=openmetrics).encode()
                        yield from lines

    def _encode_or_reuse(self, metric: Definition[Any], group: MetricGroup[Any]) -> Sequence[bytes]:
        labels, values = group.labels, list(map(metric.read, group.items))
        encoded = self._encoded.get(metric.name)
        if encoded is None or encoded.values != values or encoded.labels != labels:
            parts = [slice(start, start + _ITEMS_AT_ONCE) for start in range(0, len(values), _ITEMS_AT_ONCE)]
            lines = [encode_samples(metric, labels[part], values[part]).encode() for part in parts]
            encoded = self._encoded[metric.name] = _EncodedMetric(labels, values, list(filter(None, lines)))
        return encoded.lines


def gzip_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress chunks of text into the chunks of one gzip member. Other threads run meanwhile."""
    stream = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, isal_zlib.MAX_WBITS | 16)
    pending: list[bytes] = []
    pending_bytes = 0
    for chunk in chunks:
        pending.append(chunk)
        pending_bytes += len(chunk)
        if pending_bytes >= _GZIP_BYTES:
            yield from map(stream.compress, pending)
            pending, pending_bytes = [], 0
    yield stream.compress(b"".join(pending)) + stream.flush()


def encode_header(metric: Definition[Any], *, openmetrics: bool) -> str:
    """Return the ``# HELP`` and ``# TYPE`` lines of a metric."""
    name, help_text = metric.name, metric.help_text.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        # OpenMetrics names a counter without _total here; the text format names it like its samples.
        name = name.removesuffix("_total") if metric.kind == "counter" else name
        help_text = help_text.replace('"', r"\"")
    return f"# HELP {name} {help_text}\n# TYPE {name} {metric.kind}\n"


def encode_samples(metric: Definition[Any], labels: Sequence[str], values: Sequence[Any]) -> str:
    """Return the sample lines of one metric.

    Args:
        metric: the metric.
        labels: the labels of each item as text without braces; empty texts if the items have no labels.
        values: what the metric has read from each item.
    """
    if metric.samples is None:
        return _encode_numbers(metric.name, labels, values)
    # Most items have one of a few values, such as a state: the text around the labels is made once for each value.
    text_around: dict[Any, list[str]] = {}
    lines: list[str] = []
    for label, value in zip(labels, values, strict=True):
        parts = text_around.get(value)
        if parts is None:
            parts = text_around[value] = _text_around_labels(metric.name, metric.samples(value), bool(label))
        lines.append(label.join(parts))
    return "".join(lines)


def _encode_numbers(name: str, labels: Sequence[str], values: Sequence[Any]) -> str:
    """Return one line for each value that is not ``None``."""
    if None in values:
        known = [(label, value) for label, value in zip(labels, values, strict=True) if value is not None]
        labels, values = [label for label, _ in known], [value for _, value in known]
    if not values:
        return ""
    start, end = (f"{name}{{", "} ") if labels[0] else (name, " ")
    pairs = zip(labels, values, strict=True)
    if _have_plain_repr(values):
        return "".join([f"{start}{label}{end}{value!r}\n" for label, value in pairs])
    return "".join([f"{start}{label}{end}{format_number(value)}\n" for label, value in pairs])


def _have_plain_repr(numbers: Sequence[float]) -> bool:
    """Return whether ``repr`` of all these numbers is what :func:`format_number` returns; it takes a third as long."""
    types = set(map(type, numbers))
    if types == {int}:
        return min(numbers) > -_LARGEST_EXACT and max(numbers) < _LARGEST_EXACT
    return types == {float} and math.isfinite(sum(numbers))


def format_number(number: float) -> str:
    """Format the value of a sample as both formats want it."""
    if isinstance(number, int) and -_LARGEST_EXACT < number < _LARGEST_EXACT:
        return str(int(number))
    try:
        number = float(number)
    except OverflowError:
        return "+Inf" if number > 0 else "-Inf"
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"


def _text_around_labels(name: str, samples: Iterable[Sample], labelled: bool) -> list[str]:
    """Return the text before, between and after an item's own labels in the lines of these samples."""
    parts = [""]
    for suffix, labels, number in samples:
        text = format_labels(*labels)
        opening, closing = ("{", "}") if labelled or text else ("", "")
        separator = "," if labelled and text else ""
        parts[-1] += f"{name}{suffix}{opening}"
        parts.append(f"{separator}{text}{closing} {format_number(number)}\n")
    return parts
