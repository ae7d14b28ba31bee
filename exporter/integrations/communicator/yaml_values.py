"""Reads single values of a YAML document of another program, whose keys may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from exporter.config.document import ConfigError, Document, Location, Mistake, describe, key_path


class YamlValues:
    """The values of a document by location. A value of another type raises :class:`ConfigError` with its line and key.

    Args:
        document: the document.
    """

    def __init__(self, document: Document) -> None:
        self.document = document

    def value(self, at: Location) -> Any:
        """Return the value at a location; ``None`` if it is missing."""
        node: Any = self.document.data
        for depth, part in enumerate(at):
            if node is None:
                return None
            if not isinstance(node, dict):
                raise self.mistake(at[:depth], f"must be a section (lines of `key: value`), not {kind_of(node)}")
            node = node.get(part)
        return node

    def section(self, at: Location) -> Mapping[str, Any]:
        """Return the section at a location; an empty one if it is missing."""
        value = self.value(at)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.mistake(at, f"must be a section (lines of `key: value`), not {kind_of(value)}")
        return value

    def text(self, at: Location) -> str | None:
        """Return the text at a location; ``None`` if it is missing."""
        value = self.value(at)
        if value is None or isinstance(value, str):
            return value
        raise self.mistake(at, f"must be text, not {kind_of(value)}")

    def texts(self, at: Location) -> tuple[str, ...]:
        """Return the texts of a list, or one text written instead of a list; none if it is missing."""
        value = self.value(at)
        listed = value if isinstance(value, list) else [value]
        for each in listed:
            if each is not None and not isinstance(each, str):
                raise self.mistake(at, f"must be text or a list of texts, not {kind_of(each)}; put it in quotes")
        return tuple(each for each in listed if each)

    def number(self, at: Location) -> float | None:
        """Return the finite number at a location; ``None`` if it is missing."""
        value = self.value(at)
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)):
            return value
        raise self.mistake(at, f"must be a finite number, not {kind_of(value)}")

    def mistake(self, at: Location, wrong: str) -> ConfigError:
        """Make the error that says what is wrong at a location, with file, line and key."""
        mistake = Mistake(self.document.line(at), key_path(at), wrong)
        return ConfigError([mistake.shown(self.document.name)])


def kind_of(value: object) -> str:
    """Describe the type of a value, without its content, which may be a secret."""
    return (
        describe(value) if isinstance(value, (bool, dict, list)) else "text" if isinstance(value, str) else "a number"
    )
