"""Makes texts that are likely to make a given regular expression slow.

A backtracking search is slow if its repeats can divide a text in many ways before it fails, or if it looks far ahead
from every position. So the texts consist of a prefix that leads to a repeat, many copies of what the repeat matches,
and an end that does not match.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

if sys.version_info >= (3, 11):
    from re import _parser  # type: ignore[attr-defined]
else:
    import sre_parse as _parser

UNITS_AT_MOST = 24
PREFIXES_AT_MOST = 12
_LONGEST_UNIT = 64
_ENDS = ("", "\x01")
_USUAL = ("1", "a", "A", " ", "_", ".", "-", "/", "\t", "x", ":")
_CATEGORIES = {"DIGIT": "1", "SPACE": " ", "WORD": "a", "NOT_DIGIT": "a", "NOT_SPACE": "a", "NOT_WORD": " "}
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@dataclass(frozen=True, slots=True)
class Attack:
    """A text of any length: a prefix, a repeated unit, and an end."""

    prefix: str
    unit: str
    end: str

    def text(self, length: int) -> str:
        """Return the text with this length; it contains at least one unit."""
        times = max(1, (length - len(self.prefix) - len(self.end)) // len(self.unit))
        return self.prefix + self.unit * times + self.end

    def __str__(self) -> str:
        text = f"{_readable(self.unit)!r} again and again"
        if self.prefix:
            text = f"{_readable(self.prefix)!r}, then {text}"
        return f"{text}, then {self.end!r}" if self.end else text


def _readable(text: str) -> str:
    """Decode bytes (given as Latin-1) as UTF-8, if they are UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def attacks(pattern: str | bytes) -> Iterator[Attack]:
    """Return texts to measure a pattern with, the most promising first.

    Args:
        pattern: a valid regular expression.
    """
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    found = _Found()
    whole = ""
    with contextlib.suppress(RecursionError):  # deeply nested: use what was found so far
        whole = found.walk(_parser.parse(text), "")
    prefixes = _distinct(["", *found.prefixes, whole], PREFIXES_AT_MOST)
    units = _distinct([*found.bodies, whole, whole[:-1], *found.prefixes, *found.characters, *_USUAL], UNITS_AT_MOST)
    for prefix in prefixes:
        for unit in units:
            if unit:
                for end in _ENDS:
                    yield Attack(prefix, unit, end)


def _distinct(texts: Sequence[str], at_most: int) -> list[str]:
    return list(dict.fromkeys(text[:_LONGEST_UNIT] for text in texts))[:at_most]


class _Found:
    """Result of a walk through a parsed pattern.

    Attributes:
        prefixes: texts that match everything before a repeat.
        bodies: texts that match the repeated part.
        characters: characters in the pattern.
    """

    def __init__(self) -> None:
        self.prefixes: list[str] = []
        self.bodies: list[str] = []
        self.characters: list[str] = []

    def walk(self, tokens: Any, before: str) -> str:
        """Return a short text that these tokens match, if possible; ``before`` matches everything before them."""
        text = ""
        for operation, argument in tokens:
            text += self._sample(str(operation), argument, before + text)
        return text

    def _sample(self, operation: str, argument: Any, before: str) -> str:
        if operation in ("LITERAL", "NOT_LITERAL"):
            character = chr(argument)
            self.characters.append(character)
            return character if operation == "LITERAL" else _other_than({character})
        if operation == "ANY":
            return "a"
        if operation == "IN":
            return self._member(argument)
        if operation == "BRANCH":
            samples = [self.walk(branch, before) for branch in argument[1]]
            self.bodies += samples
            return samples[0] if samples else ""
        if operation in _REPEATS:
            least, _, body = argument
            self.prefixes.append(before)
            sample = self.walk(body, before)
            self.bodies.append(sample)
            return sample * min(max(int(least), 1), _LONGEST_UNIT)
        if operation == "SUBPATTERN":
            return self.walk(argument[3], before)
        if operation == "ATOMIC_GROUP":
            return self.walk(argument, before)
        if operation == "GROUPREF_EXISTS":
            return self.walk(argument[1], before)
        return ""  # anchors, look-arounds and back references add nothing that is known here

    def _member(self, items: Any) -> str:
        named: list[str] = []
        negated = False
        for operation, argument in items:
            kind = str(operation)
            if kind == "NEGATE":
                negated = True
            elif kind == "LITERAL":
                named.append(chr(argument))
            elif kind == "RANGE":
                named += [chr(argument[0]), chr(argument[1])]
            elif kind == "CATEGORY":
                named.append(_CATEGORIES.get(str(argument).replace("CATEGORY_", ""), "a"))
        self.characters += named
        return _other_than(set(named)) if negated else (named[0] if named else "a")


def _other_than(characters: set[str]) -> str:
    return next(each for each in ("a", "1", " ", "_", "~", "\x02") if each not in characters)
