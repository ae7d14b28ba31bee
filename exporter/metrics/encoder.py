"""Metrics as text, and the text compressed: what a scrape gets, made of what has changed since the last one.

Both formats that Prometheus reads want all samples of a metric together, so the text cannot be kept by beam. It is
kept in *blocks*: one metric of some hundred items. What a metric reads is read again of those items alone that have
changed, or that the clock moves; a block is made again only where that is another value, and it is kept compressed, a
twentieth of its size (:mod:`~exporter.metrics.gzip_chunks`). The two formats share their sample lines; only a metric's
head is not.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Generic

from exporter.metrics.gzip_chunks import Compressor, Piece, strung
from exporter.metrics.metric_types import Definition, Item, Labels, Sample

ITEMS_PER_BLOCK = 256
"""At most, on average. Lines of so many beams are made in a tenth of a millisecond, and compress as well as more."""
_LARGEST_EXACT = 2**53
_LITTLE = 0.25
"""Of what is prepared: what the clock moves is a part as small as that."""


@dataclass(frozen=True, slots=True)
class MetricGroup(Generic[Item]):
    """Things of one sort, as a scrape shows them.

    Args:
        table: the metrics that each of them has.
        keys: what tells one item from another, and its labels with it.
        items: in the order of ``keys``.
        labels: an item's labels, from its key.
        alike: whether two items of one key are known to differ in what the clock moves alone.
    """

    table: tuple[Definition[Item], ...]
    keys: Sequence[Hashable]
    items: Sequence[Item]
    labels: Callable[[Any], Labels]
    alike: Callable[[Item, Item], bool] | None = None


def text_of(number: float) -> str:
    """A sample's value as both formats write it."""
    if number.__class__ is float:
        if number - number == 0.0:
            return repr(number)
        return "NaN" if number != number else "+Inf" if number > 0 else "-Inf"
    if -_LARGEST_EXACT < number < _LARGEST_EXACT:
        return str(int(number))
    try:
        return repr(float(number))
    except OverflowError:
        return "+Inf" if number > 0 else "-Inf"


def text_of_labels(labels: Labels) -> str:
    """Labels as both formats write them, without the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


_text_of_further = lru_cache(maxsize=4096)(text_of_labels)
"""Of labels that tell an item's samples apart: there are few, and every beam has them."""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def lines(metric: Definition[Any], labels: str, values: Sequence[Any]) -> str:
    """The lines of some items.

    Args:
        metric: whose.
        labels: of each item the text of its labels, one below the other; empty for a single item that has none.
        values: of each item what the metric reads.
    """
    name, samples = metric.name, metric.samples
    if not labels:
        if samples is None:
            return "".join([_line(name, ("", (), value)) for value in values if value is not None])
        return "".join([_line(name, point) for value in values for point in samples(value)])
    if samples is None:
        return _lines_of_numbers(name, labels, values)
    # Most items are in one of a few states: what stands around their labels is made once for each state.
    around: dict[Any, list[str]] = {}
    made: list[str] = []
    for of_item, value in zip(labels.split("\n"), values, strict=True):
        known = around.get(value)
        if known is None:
            known = around[value] = _around_labels(name, samples(value))
        made.append(of_item.join(known))
    return "".join(made)


def _lines_of_numbers(name: str, labels: str, values: Sequence[float | None]) -> str:
    """One line for each value that is known: thousands at a scrape, so no code of Python's runs for each."""
    numbers: tuple[Any, ...] = tuple([value for value in values if value is not None])
    if not numbers:
        return ""
    if len(numbers) < len(values):
        pairs = zip(labels.split("\n"), values, strict=True)
        labels = "\n".join([of_item for of_item, value in pairs if value is not None])
    kinds = set(map(type, numbers))
    if kinds <= {int, bool} and min(numbers) > -_LARGEST_EXACT and max(numbers) < _LARGEST_EXACT:
        form = "%d"
    elif kinds == {float} and all(map(math.isfinite, numbers)):
        form = "%r"
    else:
        form, numbers = "%s", tuple(map(text_of, numbers))
    template = labels.replace("%", "%%").replace("\n", f"}} {form}\n{name}{{")
    return f"{name}{{{template}}} {form}\n" % numbers


def _line(name: str, point: Sample) -> str:
    """The line of an item without labels of its own."""
    suffix, further, number = point
    labels = f"{{{_text_of_further(further)}}}" if further else ""
    return f"{name}{suffix}{labels} {text_of(number)}\n"


def _around_labels(name: str, samples: Iterable[Sample]) -> list[str]:
    """What stands before, between and after the labels of an item that has some, in the lines of these samples."""
    around = [""]
    for suffix, further, number in samples:
        separated = f",{_text_of_further(further)}" if further else ""
        around[-1] += f"{name}{suffix}{{"
        around.append(f"{separated}}} {text_of(number)}\n")
    return around


def head(metric: Definition[Any], *, openmetrics: bool) -> str:
    """What stands before a metric's lines."""
    name, help_text = metric.name, metric.help_text.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        # A counter's family is named without _total there; the text format names it as its samples are.
        name = name.removesuffix("_total") if metric.kind == "counter" else name
        help_text = help_text.replace('"', r"\"")
    return f"# HELP {name} {help_text}\n# TYPE {name} {metric.kind}\n"


@dataclass(slots=True)
class _Block:
    """A metric of some items: what was read of them, and what came of it.

    ``stale`` are the places of those of which something else may be read now.
    """

    values: list[Any]
    piece: Piece
    stale: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Bucket:
    """Some items of a group, and their blocks by metric."""

    keys: list[Hashable] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    labels: str = ""
    items: list[Any] = field(default_factory=list)
    blocks: dict[str, _Block] = field(default_factory=dict)

    def take(self, group: MetricGroup[Any]) -> None:
        """Take the items as they are now, and note which of them are others than before."""
        before, self.items = self.items, [group.items[place] for place in self.places]
        if not self.blocks:
            return
        pairs = enumerate(zip(before, self.items, strict=True))
        moved = [place for place, (old, new) in pairs if old is not new]
        if not moved:
            return
        alike, changed = group.alike, moved
        if alike is not None:
            changed = [place for place in moved if not alike(before[place], self.items[place])]
        for metric in group.table:
            block = self.blocks.get(metric.name)
            if block is not None:
                block.stale.update(moved if metric.by_clock else changed)

    def make(self, metric: Definition[Any], compressor: Compressor) -> int | None:
        """Make a block again where what the metric reads has changed.

        Returns:
            How many lines were made; ``None`` where the block stays.
        """
        block = self.blocks.get(metric.name)
        if block is None:
            values = list(map(metric.read, self.items))
        elif not block.stale:
            return None
        else:
            values = self._read_again(metric.read, block)
            if values == block.values:
                block.stale.clear()
                return None
        text = lines(metric, self.labels, values)
        self.blocks[metric.name] = _Block(values, compressor.piece(text))
        return text.count("\n")

    def _read_again(self, read: Callable[[Any], Any], block: _Block) -> list[Any]:
        if len(block.stale) == len(self.items):
            return list(map(read, self.items))
        values = block.values.copy()
        for place in block.stale:
            values[place] = read(self.items[place])
        return values


class _Shelf:
    """What is kept of one group from scrape to scrape: nothing of an item that has gone.

    An item's bucket depends on its key and on how many buckets there are. There is one more of them at a time, and it
    takes its items from one other (linear hashing): for each item that comes or goes, at most three change.
    """

    def __init__(self) -> None:
        self._keys: Sequence[Hashable] = []
        self._buckets: list[_Bucket] = []
        self._families: dict[str, Piece] = {}
        self.lines_made = 0

    def take(self, group: MetricGroup[Any]) -> None:
        """Take the group's items as they are now."""
        if group.keys != self._keys:
            self._arrange(group)
        for bucket in self._buckets:
            bucket.take(group)

    def family(self, metric: Definition[Any], compressor: Compressor) -> Piece:
        """All lines of a metric of the group."""
        # Taken out, so that it is not taken for current where making a block of it raises.
        piece = self._families.pop(metric.name, None)
        made = [count for bucket in self._buckets if (count := bucket.make(metric, compressor)) is not None]
        self.lines_made += sum(made)
        if piece is None or made:
            piece = strung(bucket.blocks[metric.name].piece for bucket in self._buckets)
        self._families[metric.name] = piece
        return piece

    def _arrange(self, group: MetricGroup[Any]) -> None:
        """Put every item into its bucket; a bucket that holds the same items as before stays as it is."""
        count = len(self._buckets)
        if not ITEMS_PER_BLOCK * (count - 2) < len(group.keys) <= ITEMS_PER_BLOCK * count:
            count = max(1, -(-len(group.keys) // ITEMS_PER_BLOCK))
        buckets = [_Bucket() for _ in range(count)]
        for place, key in enumerate(group.keys):
            bucket = buckets[_number(hash(key), count)]
            bucket.keys.append(key)
            bucket.places.append(place)
        for number, bucket in enumerate(buckets):
            old = self._buckets[number] if number < len(self._buckets) else None
            if old is not None and old.keys == bucket.keys:
                old.places = bucket.places
                buckets[number] = old
            else:
                bucket.labels = "\n".join([text_of_labels(group.labels(key)) for key in bucket.keys])
        self._keys, self._buckets = group.keys, buckets
        self._families.clear()


def _number(hashed: int, count: int) -> int:
    """Which of ``count`` buckets; with one bucket more it is the same, or the new one."""
    size = 1 << (count - 1).bit_length()
    number = hashed % size
    return number if number < count else number - size // 2


class MetricsEncoder:
    """What ``/metrics`` shows, as text.

    Args:
        parts: everything of ours; each part is called once for each scrape, and what it gives is from one moment.
    """

    def __init__(self, *parts: Callable[[], Iterable[MetricGroup[Any]]]) -> None:
        self._parts = parts
        self.asked = False
        """Whether somebody has scraped, or does."""
        self._shelves: defaultdict[str, _Shelf] = defaultdict(_Shelf)
        self._lock = threading.Lock()
        self._most_prepared = 0

    @property
    def lines_made(self) -> int:
        """Lines that were made so far; those kept from an earlier scrape are not counted again."""
        return sum(shelf.lines_made for shelf in self._shelves.values())

    def encode(self, *, openmetrics: bool, further: bytes = b"", names: Container[str] | None = None) -> Piece:
        """One scrape.

        Args:
            openmetrics: OpenMetrics 1.0.0 instead of the text format 0.0.4.
            further: text that follows, with the end mark where the format has one.
            names: only the metrics of these names; all where not given.
        """
        self.asked = True
        with self._lock:
            compressor = Compressor()
            pieces: list[Piece] = []
            for group in chain.from_iterable(part() for part in self._parts):
                shelf = self._shelves[group.table[0].name]
                shelf.take(group)
                for metric in group.table:
                    if names is not None and metric.name not in names:
                        continue
                    piece = shelf.family(metric, compressor)
                    if piece.size_bytes:
                        pieces += (compressor.piece(head(metric, openmetrics=openmetrics)), piece)
            pieces.append(compressor.piece(further))
            return strung(pieces)

    def prepare(self) -> bool:
        """Make what the first scrape would have to make, unless that comes meanwhile: it makes the rest itself.

        The lines of ten thousand beams take longer than a scraper that has just been started should wait.

        Returns:
            Whether no further call is of use: there has been a scrape, or hardly anything was left to make.
        """
        if self.asked:
            return True
        before = self.lines_made
        with self._lock:
            compressor = Compressor()
            groups = list(chain.from_iterable(part() for part in self._parts))
            for group in groups:
                self._shelves[group.table[0].name].take(group)
        for group in groups:
            for metric in group.table:
                if self.asked:
                    return True
                with self._lock:
                    self._shelves[group.table[0].name].family(metric, compressor)
        made = self.lines_made - before
        self._most_prepared = max(self._most_prepared, made)
        return made < _LITTLE * self._most_prepared
