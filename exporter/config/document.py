"""Reads YAML text into plain values, and keeps the line of each value.

Plain scalars follow YAML 1.2 (``yes`` and ``1:30`` are text, ``1e3`` is a number), not PyYAML's YAML 1.1. A duplicate
key is a mistake. Aliases are refused, because a few nested ones can expand beyond the memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from exporter.process.trusted_files import changeable_by_others

MAXIMUM_SIZE_BYTES = 1024 * 1024
"""Limit of the file size: nobody writes a larger one by hand, and PyYAML takes seconds per megabyte."""

PEM_PREFIX = "-----BEGIN"
"""The beginning of keys and certificates (PEM), which are sometimes pasted into the wrong place."""

Trust = Literal["owned", "any_owner", "unchecked"]
"""Who may be able to change a configuration file (:func:`read_text`)."""

Location = tuple[str | int, ...]
"""Keys and list positions that lead to a value, such as ``("sources", 0, "log_path", 1)``."""


class ConfigError(ValueError):
    """A configuration that cannot be used.

    Attributes:
        mistakes: one text ``FILE:LINE: key.path: what is wrong, what to do`` for each mistake, sorted by line.
    """

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in one line of a file. An empty ``key`` means the file as a whole."""

    line: int
    key: str
    text: str

    @property
    def order(self) -> tuple[int, str]:
        return self.line, self.key

    def shown(self, name: str) -> str:
        return f"{name}:{self.line}: {self.key}: {self.text}" if self.key else f"{name}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Origin:
    """File and lines of the values of a configuration, for mistakes that show only when a value is used.

    It is ignored in comparisons: settings with equal values are equal.

    Attributes:
        name: name of the file; ``""`` if the values do not come from a file.
        lines: line of each location in the file.
    """

    name: str = field(default="", compare=False)
    lines: Mapping[Location, int] = field(default_factory=dict, compare=False, repr=False)

    def line(self, location: Location) -> int:
        """Return the line of a location, or of the innermost enclosing location in the file."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def error_at(self, wrong: Iterable[tuple[Location, str]]) -> ConfigError:
        """Return the error for mistakes at these locations, worded as for a file that is read.

        Args:
            wrong: locations and texts. A list position is dropped if one value is written instead of a list.
        """
        found = []
        for location, text in wrong:
            if isinstance(location[-1], int) and location not in self.lines:
                location = location[:-1]
            found.append(Mistake(self.line(location), key_path(location), text))
        found.sort(key=lambda each: each.line)
        return ConfigError(each.shown(self.name) if self.name else f"{each.key}: {each.text}" for each in found)


def key_path(location: Location) -> str:
    """Return a location as users write it: ``sources[0].log_path[1]``. A key that may be a login is hidden."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if re.fullmatch(r"[\w-]+", part) else "(a key with a colon)" if ":" in part else quoted(part)
            text += ("." if text else "") + shown
    return text


def describe(value: object) -> str:
    """Describe a value in a message: short, on one line, without the content of a section or list."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value:.15g}"
        case str():
            return f"the text {quoted(value)}"
        case Mapping():
            return "a section"
        case _:
            return "a list"


def quoted(text: str) -> str:
    """Quote a user's text for a message: one line, at most 60 characters, no content of a key (PEM)."""
    if PEM_PREFIX in text:
        return "(a key or certificate, not shown)"
    return repr(text if len(text) <= 60 else text[:57] + "...")


def read_text(path: Path, trust: Trust = "unchecked") -> str:
    """Read the text of a configuration file.

    Args:
        path: the file.
        trust: who may be able to change the file. ``owned``: only root and this process's user; ``any_owner``: only its
            owner and root; ``unchecked``: anybody.

    Raises:
        ConfigError: the file is missing, unreadable, a directory, writable by others, larger than 1 MiB, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            if trust != "unchecked":
                wrong = changeable_by_others(path, os.fstat(file.fileno()), any_owner=trust == "any_owner")
                if wrong is not None:
                    raise ConfigError([f"{path}: {wrong}"])
            data = file.read(MAXIMUM_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; name a readable YAML file"]) from error
    if len(data) > MAXIMUM_SIZE_BYTES:
        raise ConfigError([f"{path}: larger than {MAXIMUM_SIZE_BYTES} bytes; this is not a configuration file"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{data[error.start]:02x} is not UTF-8 text"
        raise ConfigError([f"{path}:{line}: {wrong}; save the file as UTF-8"]) from error


_NO_TAGS = "tags (!name) are not supported; drop it, or put a value that begins with ! in quotes"


class _Loader(yaml.SafeLoader):
    """Keeps lines, reads scalars by YAML 1.2's core schema (decimal numbers only), and refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.current_event.start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported; repeat the value", problem_mark=mark)
        # YAML 1.2 allows an anchor twice. PyYAML refuses it and quotes it, and it may be a password that begins with &.
        self.anchors.clear()
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_NULL, _BOOL, _INT, _FLOAT, _TEXT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))
_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1
_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
# Numbers with more digits are read as floats, which fail their range check; int() would fail on its length limit.
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]{1,18}$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_SCALARS: Mapping[str, Callable[[str], object]] = {
    _NULL: lambda text: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: int,
    _FLOAT: lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
    _TEXT: str,
}


@dataclass(slots=True)
class Document:
    """YAML text as plain values (``dict``, ``list`` and scalars), with the line of each."""

    text: str
    name: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            node = yaml.compose(self.text, _Loader)
            data = {} if node is None else self._plain(node, ())
        except yaml.YAMLError as error:
            raise ConfigError([self._syntax_mistake(error).shown(self.name)]) from error
        except RecursionError as error:
            raise ConfigError([f"{self.name}: nested too deeply; this is not a configuration file"]) from error
        if data is not None and not isinstance(data, dict):
            line = node.start_mark.line + 1 if node else 1
            wrong = "the file must consist of sections (lines of `key: value`)"
            # Do not quote the value: it may be a line `USER:PASSWORD`.
            found = "a list" if isinstance(data, list) else "a single value"
            raise ConfigError([Mistake(line, "", f"{wrong}, not of {found}").shown(self.name)])
        self.data = data or {}

    @property
    def origin(self) -> Origin:
        """File and lines, without the values."""
        return Origin(self.name, self.lines)

    def line(self, location: Location) -> int:
        """Return the line of a location, or of the innermost enclosing location in the text."""
        return self.origin.line(location)

    def _plain(self, node: yaml.Node, location: Location) -> Any:
        self.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self._plain(item, (*location, position)) for position, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                return _SCALARS[node.tag](node.value)
            except ValueError:  # an explicit tag on something else: !!int abc
                self._note(node, location, "is not of the type that its tag says; drop the tag")
                return None
        # Do not quote the tag: it may be a password that begins with !.
        self._note(node, location, _NO_TAGS)
        return None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(key_node, location, "a key must be plain text")
                continue
            at = (*location, key_node.value)
            if key_node.value in values:
                self._note(key_node, at, f"given twice (first in line {self.lines[at]}); keep one of them")
                continue
            self.lines[at] = key_node.start_mark.line + 1
            values[key_node.value] = self._plain(value_node, at)
        return values

    def _note(self, node: yaml.Node, location: Location, text: str) -> None:
        self.mistakes.append(Mistake(node.start_mark.line + 1, key_path(location), text))

    def _syntax_mistake(self, error: yaml.YAMLError) -> Mistake:
        # Only the parser's message: its excerpt of the text could contain a secret.
        if isinstance(error, yaml.MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            line = mark.line if mark else 0
            # Split as YAML does: splitlines() knows more line ends.
            written = "".join(re.split("\r\n|[\r\n\x85\u2028\u2029]", self.text)[line : line + 1])
            if mark and error.problem is not None and "'\\t'" in error.problem:
                indents = not written[: mark.column].strip(" \t\ufeff")
                tab = "a tab; indent with spaces" if indents else "a tab between two words; write a space instead"
                return Mistake(line + 1, "", f"not valid YAML: {tab}")
            if error.problem is not None and "tag handle" in error.problem:  # which the parser names
                return Mistake(line + 1, "", f"not valid YAML: {_NO_TAGS}")
            words = " ".join(each for each in (error.context, error.problem) if each)
            brace = "{" in written
            advice = "; put a value with { } in quotes" if brace else ""
            return Mistake(line + 1, "", f"not valid YAML: {words}{advice}")
        position = getattr(error, "position", 0)
        return Mistake(self.text.count("\n", 0, position) + 1, "", "not valid YAML: control character; remove it")
