"""Doors through which an object's state is taken and given as plain data, so that it can be kept in a file.

Such an object has a dataclass beside it, whose fields are named after the attributes of the object (a leading
underscore left out). What is not in it is named in ``NOT_SAVED``: ``tests/process/test_plain_state.py`` fails where
an attribute is in neither.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

State = TypeVar("State")

_pairs: dict[tuple[type, type], tuple[tuple[str, str], ...]] = {}
"""Fields of a state and the attributes they are about; ten thousand beams are asked at once."""


def attributes(thing: object) -> frozenset[str]:
    """Names of the attributes that ``thing`` holds, whether in slots or in a dictionary."""
    names = set(getattr(thing, "__dict__", ()))
    for each in type(thing).__mro__:
        slots = getattr(each, "__slots__", ())
        names.update((slots,) if isinstance(slots, str) else slots)
    return frozenset(names - {"__dict__", "__weakref__"})


def pairs(thing: object, state: Any) -> tuple[tuple[str, str], ...]:
    """Each field of a state with the attribute of ``thing`` that it is about."""
    known = _pairs.get((type(thing), state))
    if known is None:
        held = attributes(thing)
        names = [each.name for each in fields(state)]
        known = tuple((name, f"_{name}" if f"_{name}" in held else name) for name in names)
        _pairs[type(thing), state] = known
    return known


def take(thing: object, state: type[State], **converted: object) -> State:
    """The state of ``thing``.

    Args:
        thing: whose attributes are read.
        state: a dataclass.
        converted: fields that are not simply the attribute: what changes later must be copied.
    """
    return state(
        *(
            converted[name] if name in converted else getattr(thing, attribute)
            for name, attribute in pairs(thing, state)
        )
    )


def give(thing: object, state: object, **converted: object) -> None:
    """Set the attributes of ``thing`` to its state's; to what is in ``converted`` instead, where a field is."""
    for name, attribute in pairs(thing, type(state)):
        setattr(thing, attribute, converted[name] if name in converted else getattr(state, name))
