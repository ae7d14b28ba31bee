"""Metrics as text, and the text compressed: what a scrape gets, made of what has changed since the last one.

Both formats that Prometheus reads want all samples of a metric together, so the text cannot be kept by beam. It is
kept in *blocks*: one metric of some hundred things. A block is made again only when what the metric reads of one of its
things has changed, and it is kept compressed, a twentieth of its size: a block ends with a full flush, which makes it
independent of the blocks around it, and the checksum that gzip wants of the whole is combined from the blocks'. The
sample lines of the two formats are the same; only a metric's head is not.

Compressing lets go of the interpreter's lock, so other threads get their turn after each block.
"""

from __future__ import annotations

import gzip
import struct
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from operator import is_
from typing import Any, Generic

from exporter.web.families import Definition, Labels, Point, Thing

THINGS_PER_BLOCK = 256
"""At most, on average. Lines of so many beams are made in a tenth of a millisecond, and compress as well as more."""
_LEVEL = 1
"""Of compression: level 9 takes ten times as long and saves little of what level 1 leaves."""
_SMALL_BYTES = 1 << 18
"""Less is compressed anew as a whole: blocks of a few lines each come out three times as large as they could."""
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LAST_BLOCK = b"\x03\x00"
_RAW = -zlib.MAX_WBITS
_LARGEST_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Group(Generic[Thing]):
    """Things of one sort, as a scrape shows them.

    Args:
        table: the metrics that each of them has.
        keys: what tells one thing from another, and its labels with it.
        things: in the order of ``keys``.
        labels: a thing's labels, from its key.
    """

    table: tuple[Definition[Thing], ...]
    keys: Sequence[Hashable]
    things: Sequence[Thing]
    labels: Callable[[Any], Labels]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, compressed such that pieces can be strung together.

    Args:
        deflated: a raw deflate stream without its end.
        crc: of the text.
        size_bytes: of the text.
    """

    deflated: bytes
    crc: int
    size_bytes: int


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
"""Of labels that tell a thing's samples apart: there are few, and every beam has them."""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def lines(metric: Definition[Any], of_things: Iterable[tuple[str, Any]]) -> list[str]:
    """The lines of some things: of each the text of its labels, and what the metric reads of it."""
    name, points = metric.name, metric.points
    if points is None:
        return [
            # Most values are finite floats: a call for each would take longer than the rest of the line.
            f"{name}{{{labels}}} {value!r}\n"
            if value.__class__ is float and value - value == 0.0 and labels
            else _line(name, labels, ("", (), value))
            for labels, value in of_things
            if value is not None
        ]
    made: list[str] = []
    # Most things are in one of a few states: what stands before and after their labels is made once for each.
    around: dict[Any, list[tuple[str, str]]] = {}
    for labels, value in of_things:
        if not labels:
            made += [_line(name, labels, point) for point in points(value)]
            continue
        if value not in around:
            around[value] = [_around_labels(name, point) for point in points(value)]
        made += [f"{before}{labels}{after}" for before, after in around[value]]
    return made


def _line(name: str, labels: str, point: Point) -> str:
    suffix, further, number = point
    if labels:
        before, after = _around_labels(name, point)
        return f"{before}{labels}{after}"
    if further:
        return f"{name}{suffix}{{{_text_of_further(further)}}} {text_of(number)}\n"
    return f"{name}{suffix} {text_of(number)}\n"


def _around_labels(name: str, point: Point) -> tuple[str, str]:
    """What stands before and after the labels of a thing that has some."""
    suffix, further, number = point
    separated = f",{_text_of_further(further)}" if further else ""
    return f"{name}{suffix}{{", f"{separated}}} {text_of(number)}\n"


def head(metric: Definition[Any], *, openmetrics: bool) -> str:
    """What stands before a metric's lines."""
    name, meaning = metric.name, metric.meaning.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        # A counter's family is named without _total there; the text format names it as its samples are.
        name = name.removesuffix("_total") if metric.kind == "counter" else name
        meaning = meaning.replace('"', r"\"")
    return f"# HELP {name} {meaning}\n# TYPE {name} {metric.kind}\n"


@dataclass(slots=True)
class _Block:
    """A metric of some things: what was read of them, and what came of it."""

    values: list[Any]
    piece: Piece


@dataclass(slots=True)
class _Bucket:
    """Some things of a group, always the same ones while they are there, and their blocks by metric."""

    keys: list[Hashable] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    things: list[Any] = field(default_factory=list)
    blocks: dict[str, _Block] = field(default_factory=dict)


class _Shelf:
    """What is kept of one group from scrape to scrape: nothing of a thing that has gone.

    A thing's bucket depends on its key alone, so one that comes or goes moves no other.
    """

    def __init__(self) -> None:
        self._keys: Sequence[Hashable] = []
        self._buckets: list[_Bucket] = []
        self._families: dict[str, Piece] = {}
        self.lines_made = 0

    def families(self, group: Group[Any], deflate: Callable[[bytes], bytes]) -> Iterator[tuple[Definition[Any], Piece]]:
        """Every metric of the group's table that has a sample, and all its lines."""
        if group.keys != self._keys:
            self._arrange(group)
        changed: list[tuple[_Bucket, list[Any]]] = []
        for bucket in self._buckets:
            things = [group.things[place] for place in bucket.places]
            if len(things) != len(bucket.things) or not all(map(is_, things, bucket.things)):
                changed.append((bucket, things))
        for metric in group.table:
            # Taken out, so that it is not taken for current where making a block of it raises.
            piece = self._families.pop(metric.name, None)
            made = [self._make(metric, bucket, things, deflate) for bucket, things in changed]
            if piece is None or any(made):
                piece = strung(bucket.blocks[metric.name].piece for bucket in self._buckets if bucket.keys)
            self._families[metric.name] = piece
            if piece.size_bytes:
                yield metric, piece
        for bucket, things in changed:
            bucket.things = things

    def _arrange(self, group: Group[Any]) -> None:
        """Put every thing into its bucket; a bucket that holds the same things as before keeps its blocks."""
        count = max(1, len(self._buckets))
        while len(group.keys) > THINGS_PER_BLOCK * count:
            count *= 2
        while count > 1 and 4 * len(group.keys) < THINGS_PER_BLOCK * count:
            count //= 2
        buckets = [_Bucket() for _ in range(count)]
        for place, key in enumerate(group.keys):
            bucket = buckets[hash(key) % count]
            bucket.keys.append(key)
            bucket.places.append(place)
        before = self._buckets if len(self._buckets) == count else [_Bucket()] * count
        for bucket, old in zip(buckets, before, strict=True):
            if bucket.keys and bucket.keys == old.keys:
                bucket.labels, bucket.things, bucket.blocks = old.labels, old.things, old.blocks
            else:
                bucket.labels = [text_of_labels(group.labels(key)) for key in bucket.keys]
        self._keys, self._buckets = group.keys, buckets
        self._families.clear()

    def _make(
        self, metric: Definition[Any], bucket: _Bucket, things: list[Any], deflate: Callable[[bytes], bytes]
    ) -> bool:
        """Make one block anew where something has changed.

        Returns:
            Whether it has.
        """
        values = list(map(metric.read, things))
        block = bucket.blocks.get(metric.name)
        if block is not None and block.values == values:
            return False
        made = lines(metric, zip(bucket.labels, values, strict=True))
        self.lines_made += len(made)
        bucket.blocks[metric.name] = _Block(values, _piece("".join(made), deflate))
        return True


class Exposition:
    """What ``/metrics`` shows, as text.

    Args:
        parts: everything of ours; each part is called once for each scrape, and what it gives is from one moment.
    """

    def __init__(self, *parts: Callable[[], Iterable[Group[Any]]]) -> None:
        self._parts = parts
        self._shelves: defaultdict[str, _Shelf] = defaultdict(_Shelf)
        self._lock = threading.Lock()

    @property
    def lines_made(self) -> int:
        """Lines that were made so far; those kept from an earlier scrape are not counted again."""
        return sum(shelf.lines_made for shelf in self._shelves.values())

    def render(self, *, openmetrics: bool, further: bytes = b"") -> Piece:
        """One scrape.

        Args:
            openmetrics: OpenMetrics 1.0.0 instead of the text format 0.0.4.
            further: text that follows, with the end mark where the format has one.
        """
        with self._lock:
            compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)

            def deflate(text: bytes) -> bytes:
                return compressor.compress(text) + compressor.flush(zlib.Z_FULL_FLUSH)

            pieces: list[Piece] = []
            for group in chain.from_iterable(part() for part in self._parts):
                for metric, piece in self._shelves[group.table[0].name].families(group, deflate):
                    pieces += (_piece(head(metric, openmetrics=openmetrics), deflate), piece)
            pieces.append(_piece(further, deflate))
            return strung(pieces)


def gzipped(piece: Piece) -> bytes:
    """A piece as a gzip stream of one member."""
    if piece.size_bytes < _SMALL_BYTES:
        return gzip.compress(plain(piece), _LEVEL, mtime=0)
    trailer = struct.pack("<LL", piece.crc, piece.size_bytes & 0xFFFFFFFF)
    return b"".join((_GZIP_HEAD, piece.deflated, _LAST_BLOCK, trailer))


def plain(piece: Piece) -> bytes:
    """A piece as it is without compression."""
    return zlib.decompress(piece.deflated + _LAST_BLOCK, _RAW, max(1, piece.size_bytes))


def _piece(text: str | bytes, deflate: Callable[[bytes], bytes]) -> Piece:
    data = text if isinstance(text, bytes) else text.encode()
    return Piece(deflate(data), zlib.crc32(data), len(data)) if data else Piece(b"", 0, 0)


def strung(pieces: Iterable[Piece]) -> Piece:
    """Pieces one after the other as one."""
    every = list(pieces)
    crc = 0
    for piece in every:
        crc = _multiplied(_shift(piece.size_bytes), crc) ^ piece.crc if crc else piece.crc
    return Piece(b"".join([piece.deflated for piece in every]), crc, sum(piece.size_bytes for piece in every))


# The checksum of two texts one after the other, from the checksums of both (as zlib's crc32_combine does it): a CRC is
# a polynomial over GF(2), and each byte that follows multiplies it by x to the power of 8, modulo the generator.

_GENERATOR = 0xEDB88320
_ONE = 1 << 31


def _multiplied(a: int, b: int) -> int:
    """Product of two polynomials modulo the generator; the highest bit is the coefficient of 1."""
    product = 0
    bit = _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ _GENERATOR if b & 1 else b >> 1
    return product


def _shift(size_bytes: int) -> int:
    """x to the power of 8 for each byte."""
    power, digit = _ONE, 0
    while size_bytes:
        size_bytes, low = divmod(size_bytes, 256)
        if low:
            power = _multiplied(_power(low, digit), power)
        digit += 1
    return power


@cache
def _power(low: int, digit: int) -> int:
    """x to the power of 8 for each of ``low * 256**digit`` bytes, ``low`` being less than 256."""
    if low > 1:
        return _multiplied(_power(low - 1, digit), _power(1, digit))
    return _multiplied(_power(255, digit - 1), _power(1, digit - 1)) if digit else _ONE >> 8
