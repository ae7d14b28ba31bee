"""How the fields of a beam are saved in the store (:mod:`exporter.persistence`).

A beam and everything in it are slotted dataclasses, which pydantic turns into JSON and back. Each field is saved unless
its type is :data:`NotSaved`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from exporter.logs.events import FAILURE_REASONS, Event

Value = TypeVar("Value")


class _Refused:
    """What is not saved cannot be read either; its type need not be one that could be."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_refuse)


def _refuse(_: object) -> None:
    raise ValueError("is never saved")


NotSaved = Annotated[Value, Field(exclude=True), _Refused()]
"""The type of a field that a next process finds out again, or begins anew."""


_EVENTS: dict[str, TypeAdapter[Event]] = {each.__name__: TypeAdapter(each) for each in get_args(Event)}


def _event_to_json(event: Event) -> dict[str, object]:
    return {"event": type(event).__name__, **asdict(event)}


def _event_from_json(saved: object) -> Event:
    kind = saved.get("event") if isinstance(saved, dict) else None
    if not isinstance(saved, dict) or not isinstance(kind, str) or kind not in _EVENTS:
        raise ValueError("no event of a log")
    return _EVENTS[kind].validate_python({name: value for name, value in saved.items() if name != "event"})


class _EventSchema:
    """An event with the name of its class."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _event_from_json, serialization=core_schema.plain_serializer_function_ser_schema(_event_to_json)
        )


SavedEvent: TypeAlias = Annotated[Event, _EventSchema()]
"""An event of a log; many kinds have the same fields, so the name of its class is saved, too."""


def _known_reasons(failures: dict[str, str]) -> dict[str, str]:
    if not failures.keys() <= set(FAILURE_REASONS):
        raise ValueError("unknown reasons of a failure")
    return failures


Failures: TypeAlias = Annotated[dict[str, str], AfterValidator(_known_reasons)]
"""Why a run failed: reasons, and the lines that say so."""
