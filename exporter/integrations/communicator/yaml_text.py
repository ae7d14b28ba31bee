"""Formats YAML sections with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_WIDTH = 118
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


@dataclass
class YamlSection:
    """The lines of one section."""

    lines: list[str] = field(default_factory=list)

    def comment(self, text: str, indent: int = 0) -> None:
        self.lines += wrapped(text, " " * indent + "# ")

    def put(self, key: str, value: object, indent: int = 0) -> None:
        self.lines.append(f"{' ' * indent}{key}: {yaml_value(value)}")

    def line(self, text: str) -> None:
        self.lines.append(text)


def yaml_value(value: object) -> str:
    """Format a value on one line (JSON is YAML)."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(yaml_value(item) for item in value)}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w/.-]*", value) and value.lower() not in _WORDS:
        return value
    return one_line(value) if isinstance(value, str) else json.dumps(value)


def one_line(text: str) -> str:
    """Quote a text; unprintable characters are escaped."""
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(text, ensure_ascii=False)
    )


def wrapped(text: str, prefix: str, first: str | None = None) -> Iterable[str]:
    """Wrap a comment to the line width."""
    lines, line = [], first or prefix
    empty = True
    for word in text.split():
        if not empty and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line, empty = prefix, True
        line += word if empty else f" {word}"
        empty = False
    return [*lines, line]
