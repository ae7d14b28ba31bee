"""The building blocks of the API's tables: what a field is, its JSON schema, and how ids are shown.

Answers and their OpenAPI description are made from the same tables (:mod:`exporter.web.beam_fields` and
:mod:`exporter.web.overview_fields`), so they cannot differ. Names of fields are an interface: snake_case, with the unit
of a number in its name. Times are UTC epoch seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

from exporter.beams.forecast import ExpectedEnd, expected_ends
from exporter.beams.snapshot import BeamKey, BeamState, SourceView, StoreSnapshot
from exporter.metrics.metric_types import encodable
from exporter.privacy.identifiers import Identifiers, Problem

_PROBLEM_CHARACTERS = 500
Json: TypeAlias = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderContext:
    """What the value of a field depends on, apart from its object.

    Every text returned here can be encoded as UTF-8.

    Args:
        identifiers: turns ids, paths and texts into what may leave the process.
        at: time of the snapshot, UTC epoch seconds.
        sources: all sources; they explain why beams wait.
        ends: expected ends of beams.
    """

    identifiers: Identifiers
    at: float
    sources: Sequence[SourceView] = ()
    ends: Mapping[BeamKey, ExpectedEnd] = field(default_factory=dict)

    @classmethod
    def of(cls, identifiers: Identifiers, snapshot: StoreSnapshot) -> RenderContext:
        """Make the context for objects of a snapshot."""
        return cls(identifiers, snapshot.at, snapshot.sources, expected_ends(snapshot))

    def case(self, case_id: str) -> str:
        return encodable(self.identifiers.case(case_id))

    def beam(self, beam_id: str) -> str:
        return encodable(self.identifiers.beam(beam_id))

    def path(self, path: str | None) -> str | None:
        return None if path is None else encodable(self.identifiers.path(path))

    def text(self, text: str | None) -> str | None:
        return None if text is None else encodable(self.identifiers.text(text))

    def lines(self, lines: Iterable[str]) -> list[str]:
        return [encodable(line) for line in self.identifiers.lines(lines)]

    def problem(self, problem: Problem | None) -> str | None:
        return None if problem is None else encodable(self.identifiers.problem(problem)[:_PROBLEM_CHARACTERS])

    def status(self, status: str | None) -> str | None:
        return None if status is None else encodable(self.identifiers.status(status))


@dataclass(frozen=True, slots=True)
class ApiField(Generic[T]):
    """One field of an answer: its name, JSON schema, description, and how its value is found."""

    name: str
    schema: Json
    description: str
    value: Callable[[T, RenderContext], Any]


Fields: TypeAlias = tuple[ApiField[T], ...]


def attribute(name: str, schema: Json, description: str, attribute: str | None = None) -> ApiField[Any]:
    """Make a field whose value is an attribute of the object, by default of the same name; dots are allowed."""
    get = attrgetter(attribute or name)
    return ApiField(name, schema, description, lambda thing, _: get(thing))


def number(name: str, schema: Json, description: str, attribute: str | None = None) -> ApiField[Any]:
    """Make a field of seconds: an attribute rounded to milliseconds, so that its last bits do not look like changes."""
    get = attrgetter(attribute or name)
    return ApiField(name, schema, description, lambda thing, _: rounded(get(thing)))


def rounded(seconds: float | None) -> float | None:
    """Round to milliseconds."""
    return None if seconds is None else round(seconds, 3)


def render(fields: Fields[T], thing: T, context: RenderContext) -> Json:
    """Make the JSON object of a thing."""
    return {field.name: field.value(thing, context) for field in fields}


def object_schema(fields: Fields[Any], description: str) -> Json:
    """Make the JSON schema of what :func:`render` returns: every field is always there."""
    properties = {field.name: {**field.schema, "description": field.description} for field in fields}
    return strict_object(properties, description)


def strict_object(properties: Mapping[str, Json], description: str) -> Json:
    """Make the JSON schema of an object with exactly these properties."""
    return {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
TEXTS: Json = {"type": "array", "items": TEXT}
COUNT: Json = {"type": "integer", "minimum": 0}
COUNT_OR_NULL: Json = {"type": ["integer", "null"], "minimum": 0}
RATIO: Json = {"type": "number", "minimum": 0, "maximum": 1}
NUMBER: Json = {"type": "number"}
NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
BOOLEAN: Json = {"type": "boolean"}
BOOLEAN_OR_NULL: Json = {"type": ["boolean", "null"]}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}


def one_of(words: Iterable[str]) -> Json:
    """Make the JSON schema of one of these words."""
    return {"type": "string", "enum": list(words)}


def one_of_or_null(words: Iterable[str]) -> Json:
    """Make the JSON schema of one of these words, or null."""
    return {"type": ["string", "null"], "enum": [*words, None]}


STATE: Json = one_of(state.value for state in BeamState)
