"""Lists the keys of a pydantic model, also as Markdown.

Used for the documentation, for `did you mean`, and for the test that checks the example file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

_ONLY_OF = "x-only-of"
"""In the schema of a key: the one kind of its section that has it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a user may write.

    Attributes:
        path: names from the top without list positions (``("sources", "log_path")``).
        shown: the path as users see it (``sources[].log_path``).
        kind: which values it takes, in words.
        default: as written in YAML; ``""`` if there is none.
        meaning: description of the key or section.
        section: whether it contains other keys.
        only_of: the one kind of its section that has the key; ``""`` if all have it.
    """

    path: tuple[str, ...]
    shown: str
    kind: str
    default: str
    meaning: str
    section: bool
    only_of: str = ""


@lru_cache(maxsize=8)
def keys(model: type[BaseModel]) -> tuple[Key, ...]:
    """Return every key of a model in the order of declaration, each section before its keys."""
    schema = model.model_json_schema()
    return tuple(_walk(schema, schema.get("$defs", {}), (), ""))


def markdown(model: type[BaseModel]) -> str:
    """Return the reference of a model: a chapter and a table of keys for each section."""
    schema = model.model_json_schema()
    lines = ["# Configuration", "", *_paragraphs(schema.get("description", ""))]
    lines += ["", *_table(keys(model), ()), ""]
    for section in (key for key in keys(model) if key.section):
        lines += [f"## `{section.shown}`", "", *_paragraphs(section.meaning)]
        rows = _table(keys(model), section.path)
        lines += ["", *rows, ""] if rows else [""]
    return "\n".join(lines)


def _walk(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...], shown: str
) -> Iterator[Key]:
    for name, written in schema.get("properties", {}).items():
        here = (*path, name)
        value, suffix = _resolved(written, definitions)
        title = f"{shown}.{name}" if shown else name
        section = "properties" in value
        yield Key(
            path=here,
            shown=title + suffix,
            kind=("list of sections" if suffix else "section") if section else _kind(value),
            default="" if section or written.get("default") is None else _yaml(written["default"]),
            meaning=written.get("description") or value.get("description", ""),
            section=section,
            only_of=written.get(_ONLY_OF, ""),
        )
        if section:
            yield from _walk(value, definitions, here, title + suffix)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Resolve references, ``| None`` and lists of sections (then the suffix is ``[]``)."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _resolved(choice, definitions)
    if "$ref" in schema:
        return definitions[schema["$ref"].rsplit("/", 1)[1]], ""
    if "oneOf" in schema:
        return _merged([_resolved(choice, definitions)[0] for choice in schema["oneOf"]]), ""
    items = schema.get("items", {})
    if "$ref" in items or "oneOf" in items:
        return _resolved(items, definitions)[0], "[]"
    return schema, ""


def _merged(alternatives: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Merge sections of several kinds into one; a key of one kind only says so."""
    properties: dict[str, Any] = {}
    for alternative in alternatives:
        (kind,) = _choices(alternative["properties"]["kind"])
        for name, value in alternative["properties"].items():
            everywhere = all(name in other["properties"] for other in alternatives)
            meaning = value.get("description", "") if everywhere else f"Kind {kind}: {value.get('description', '')}"
            properties.setdefault(name, {**value, "description": meaning, _ONLY_OF: "" if everywhere else kind})
    kinds = [choice for alternative in alternatives for choice in _choices(alternative["properties"]["kind"])]
    meaning = " ".join(alternative["properties"]["kind"].get("description", "") for alternative in alternatives)
    properties["kind"] = {**properties["kind"], "enum": kinds, "description": meaning}
    return {"properties": properties, "description": alternatives[0].get("description", "")}


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    return list(schema.get("enum", [schema.get("const")]))


def _kind(schema: Mapping[str, Any]) -> str:
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in _choices(schema))
    match schema.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "integer" | "number":
            return ("whole number" if schema["type"] == "integer" else "number") + _bounds(schema)
        case "array" if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])} numbers"
        case "array":
            return "text, or list of texts"
        case _:
            return "path" if schema.get("format") == "path" else "text"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = []
    for keyword, wording in (("exclusiveMinimum", "more than"), ("minimum", "at least"), ("maximum", "at most")):
        if keyword in schema:
            words.append(f"{wording} {_yaml(schema[keyword])}")
    return f", {', '.join(words)}" if words else ""


def _yaml(value: object) -> str:
    """Return a default as a user would write it: JSON is YAML, and whole floats lose their `.0`."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return value if value.isidentifier() else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _table(listed: tuple[Key, ...], section: tuple[str, ...]) -> list[str]:
    rows = [
        f"| `{key.path[-1]}` | {key.kind} | {f'`{key.default}`' if key.default else ''} | {_cell(key.meaning)} |"
        for key in listed
        if key.path[:-1] == section
    ]
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def _cell(text: str) -> str:
    first_paragraph = text.split("\n\n", maxsplit=1)[0]
    return " ".join(first_paragraph.split()).replace("|", "\\|")


def _paragraphs(text: str) -> list[str]:
    return text.splitlines()
