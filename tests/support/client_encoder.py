"""Our metrics through the client library's encoders, which tests and benchmarks compare with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from exporter.metrics.encoder import MetricGroup
from exporter.metrics.metric_types import Definition, encodable


def empty_family(metric: Definition[Any]) -> Metric:
    """Return the client library's object for a metric, without samples."""
    name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
    return Metric(name, metric.help_text, metric.kind)


@cache
def _parse_labels(text: str) -> dict[str, str]:
    [family] = text_string_to_metric_families(f"x{{{text}}} 1\n")
    return dict(family.samples[0].labels)


def _samples(group: MetricGroup[Any], metric: Definition[Any]) -> Iterator[Sample]:
    for text, item in zip(group.labels, group.items, strict=True):
        own, value = _parse_labels(text), metric.read(item)
        samples = [("", (), value)] if metric.samples is None else metric.samples(value)
        for suffix, labels, number in samples:
            if number is not None:
                yield Sample(metric.name + suffix, {**own, **{name: encodable(text) for name, text in labels}}, number)


class ClientCollector(Collector):
    """Makes our groups of metrics a collector for the client library's registry."""

    def __init__(self, groups: Callable[[], Iterable[MetricGroup[Any]]]) -> None:
        self._groups = groups

    def collect(self) -> Iterator[Metric]:
        for group in self._groups():
            for metric in group.metrics:
                family = empty_family(metric)
                family.samples = list(_samples(group, metric))
                if family.samples:
                    yield family
