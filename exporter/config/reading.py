"""Reads YAML text into a validated pydantic model, and reports every mistake with file, line and key.

It works for any model whose keys have defaults. Pydantic does not run the validators that compare keys of a section
while a key is wrong. So wrong values are reported, removed (the default applies) and the rest is validated again, until
nothing new is found. A conflict with such a default is not reported.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from exporter.config.document import ConfigError, Document, Location, Mistake, describe, key_path
from exporter.config.reference import Key, keys

MISTAKES_LIMIT = 100
"""Largest number of mistakes that are reported."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Values that are valid alone but not together.

    Attributes:
        location: where to report it, relative to the model that reports it.
        text: what is wrong and what to do.
        about: locations of the other values.
    """

    location: Location
    text: str
    about: tuple[Location, ...] = ()


class Conflicts(ValueError):
    """Raised by a model's validator to report several mistakes, each at its own location."""

    def __init__(self, found: Iterable[Conflict]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{key_path(each.location)}: {each.text}" for each in self.found))

    @classmethod
    def raise_any(cls, found: Iterable[Conflict]) -> None:
        """Raise the conflicts, if there are any."""
        listed = tuple(found)
        if listed:
            raise cls(listed)


def read_settings(
    model: type[Model], text: str, name: str, *, union_tags: Collection[str] = (), context: object = None
) -> Model:
    """Validate YAML text.

    Args:
        model: the model of the text.
        text: the YAML; an empty text is a mapping without keys.
        name: the file's name, for messages.
        union_tags: as in :func:`validate_document`.
        context: as in :func:`validate_document`.

    Raises:
        ConfigError: with all mistakes at once, at most :data:`MISTAKES_LIMIT`.
    """
    return validate_document(model, Document(text, name), union_tags=union_tags, context=context)


def validate_document(
    model: type[Model], document: Document, *, union_tags: Collection[str] = (), context: object = None
) -> Model:
    """Validate a document.

    Args:
        model: the model of the document.
        document: the values and their lines.
        union_tags: names of union alternatives that pydantic adds to locations; they are not keys.
        context: passed to the model's validators.

    Raises:
        ConfigError: with all mistakes at once, at most :data:`MISTAKES_LIMIT`.
    """
    mistakes = list(document.mistakes)
    removed: set[Location] = set()
    while len(mistakes) <= MISTAKES_LIMIT:
        rest = _Rest(document.data, removed)
        try:
            settings = model.model_validate(rest.data, context=context)
        except ValidationError as error:
            each_found = _conflicts(error, rest, keys(model), union_tags)
            found = list(itertools.islice(each_found, MISTAKES_LIMIT + 1))
        else:
            break
        mistakes += [_mistake(document, each) for each in found if not _concluded_from(each, removed)]
        about = {location for each in found for location in each.about}
        if not (about & document.lines.keys()) - removed - {()}:
            break
        removed |= about
    if mistakes:
        shown = [each.shown(document.name) for each in sorted(mistakes, key=lambda each: each.order)]
        if len(shown) > MISTAKES_LIMIT:
            shown[MISTAKES_LIMIT:] = [f"{document.name}: there are more mistakes than these; is this the right file?"]
        raise ConfigError(dict.fromkeys(shown))
    return settings


class _Rest:
    """The values of a document without the removed ones, and where each stood before.

    Args:
        data: all values.
        removed: locations of the values to leave out.
    """

    def __init__(self, data: object, removed: Collection[Location]) -> None:
        self._removed = removed
        self._originals: dict[Location, tuple[Location, bool]] = {}
        self.data = self._copy(data, (), ())

    def _copy(self, value: object, before: Location, now: Location) -> object:
        self._originals[now] = (before, isinstance(value, dict | list))
        if isinstance(value, dict):
            kept = [key for key in value if (*before, key) not in self._removed]
            return {key: self._copy(value[key], (*before, key), (*now, key)) for key in kept}
        if isinstance(value, list):
            positions = [at for at in range(len(value)) if (*before, at) not in self._removed]
            return [self._copy(value[at], (*before, at), (*now, new)) for new, at in enumerate(positions)]
        return value

    def original(self, location: Location) -> Location:
        """Convert a location in ``data`` to one in the document; it may be that of a default.

        A list position is dropped if one value is written instead of a list (``log_path: x``).
        """
        known = next(length for length in range(len(location), -1, -1) if location[:length] in self._originals)
        before, has_parts = self._originals[location[:known]]
        return (*before, *location[known:]) if has_parts else before


def _mistake(document: Document, found: Conflict) -> Mistake:
    return Mistake(document.line(found.location), key_path(found.location), found.text)


def _concluded_from(found: Conflict, removed: Iterable[Location]) -> bool:
    """Return whether a removed value, or one around or inside it, led to this conflict."""
    return any(
        about[: len(location)] == location or location[: len(about)] == about
        for location in removed
        for about in found.about
    )


def _without_tags(location: Location, union_tags: Collection[str]) -> Location:
    """Return a location as in the document: pydantic adds the name of a union alternative after a list position."""
    return tuple(
        part
        for before, part in zip((None, *location), location, strict=False)
        if not (isinstance(before, int) and part in union_tags)
    )


def _conflicts(
    error: ValidationError, rest: _Rest, known: tuple[Key, ...], union_tags: Collection[str]
) -> Iterator[Conflict]:
    """Yield pydantic's errors in our words, with locations from the top of the document."""
    for details in error.errors(include_url=False):
        top = _without_tags(details["loc"], union_tags)
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, Conflicts):
            for each in cause.found:
                relative = (each.location, *each.about)
                about = tuple(rest.original((*top, *location)) for location in relative)
                yield Conflict(about[0], each.text, about)
            continue
        location = rest.original(top)
        if details["type"] == "missing":
            # A missing key cannot be removed, so its section is; conflicts with the section are not reported.
            yield Conflict(location, "is missing and has no default; set it", (location, location[:-1]))
        elif details["type"] == "extra_forbidden":
            kinds = [part for part in details["loc"][-2:-1] if part in union_tags]
            yield Conflict(location, _unknown_key(location, known, str(kinds[0]) if kinds else ""), (location,))
        else:
            yield Conflict(location, _wording(details), (location,))


def _wording(details: ErrorDetails) -> str:
    value, context = details["input"], details.get("ctx", {})
    given = describe(value)
    match details["type"]:
        case "value_error":
            return str(context["error"])
        case "bool_type":
            return f"must be true or false, not {given}"
        case "float_type" | "int_type" | "int_from_float":
            wanted = "a number" if details["type"] == "float_type" else "a whole number"
            unquote = "; remove the quotes" if isinstance(value, str) and _is_number(value) else ""
            return f"must be {wanted}, not {given}{unquote}"
        case "finite_number":
            return f"must be a finite number, not {given}"
        case "string_type" if str(details["loc"][-1]).endswith("_file"):
            return "must be the name of a file, as text"  # do not quote it: it may be a password
        case "string_type":
            return f"must be text, not {given}" + (
                "; put it in quotes" if isinstance(value, bool | int | float) else ""
            )
        case "tuple_type":
            return f"must be a list, not {given}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a section (lines of `key: value`), not {'text' if isinstance(value, str) else given}"
        case "literal_error":
            return f"must be {context['expected']}, not {given}"
        case "greater_than":
            return f"must be more than {context['gt']:g}, not {given}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:.15g}, not {given}"
        case "less_than_equal":
            return f"must be at most {context['le']:.15g}, not {given}"
        case "too_short" | "string_too_short":
            return f"must have at least {context['min_length']} {'character' if isinstance(value, str) else 'item'}(s)"
        case "too_long":
            return f"must have at most {context['max_length']} item(s), not {len(value)}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}, unlike {given}"
        case _:
            return f"{details['msg']}, not {given}"


def _unknown_key(location: Location, known: tuple[Key, ...], kind: str) -> str:
    """Return the message for an unknown key; ``kind`` is the kind of its section, if there are several."""
    names = tuple(part for part in location if isinstance(part, str))
    section, name = names[:-1], names[-1]
    there = [key for key in known if key.path[:-1] == section]
    siblings = [key.path[-1] for key in there if key.only_of in ("", kind)]
    others = {key.path[-1]: key.only_of for key in there if key.only_of not in ("", kind)}
    close = difflib.get_close_matches(name, [] if name in others else siblings, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    if meant := difflib.get_close_matches(name, others, n=1):
        called = "it" if meant[0] == name else f"did you mean {meant[0]}? It"
        other = others[meant[0]]
        return f'unknown key here; {called} belongs to kind {other}; write "kind: {other}" (now it is kind {kind})'
    elsewhere = [key_path(key.path) for key in known if key.path[-1] == name]
    if elsewhere:
        return f"unknown key here; it belongs at {' or '.join(elsewhere)}"
    return f"unknown key; known here: {', '.join(siblings)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
