"""Templates of dose files, such as ``{base_directory}/data/Dose_dcm/{case_id}/*.dcm``.

The fields are those of a log path. The part before the first field of a beam is the fixed folder. After it, shell globs
are allowed: ``*``, ``?`` and ``[...]``. Characters in the values of fields are literal: the id ``a*b`` matches no other
id. As in a shell, no glob matches ``/``, and a name that begins with a dot needs a written dot.
"""

from __future__ import annotations

import fnmatch
import re
import string
from collections.abc import Mapping
from typing import TypeAlias

from exporter.sources.log_paths import LogPathError, LogPathTemplate

Component: TypeAlias = "str | re.Pattern[str]"
"""One folder or file of a path: a name, or a pattern that whole names must match."""

_GLOB = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")
_LONGEST_PATTERN = 4096


def _escaped(text: str) -> str:
    """Return a glob that matches only this text."""
    return _GLOB.sub(r"[\g<0>]", text)


def _unescaped(glob: str) -> str | None:
    """Return the only text that a glob matches; ``None`` if it can match several."""
    return None if _GLOB.search(_ESCAPED.sub("", glob)) else _ESCAPED.sub(r"\1", glob)


def _component(glob: str) -> Component:
    """Return the component for one part of a path, between two slashes."""
    text = _unescaped(glob)
    if text is not None:
        return text
    hidden = "" if glob.startswith(".") else r"(?!\.)"
    return re.compile(hidden + fnmatch.translate(glob))


def _is_closed(component: str) -> bool:
    """Return whether each ``[`` has its ``]``. A ``]`` directly after ``[`` or ``[!`` is one of the characters."""
    at = component.find("[")
    while at >= 0:
        end = component.find("]", at + (3 if component.startswith("[!", at) else 2))
        if end < 0:
            return False
        at = component.find("[", end)
    return True


class OutputPathTemplate:
    """An output path with fields ``{base_directory} {case_id} {beam_id} {beam_path} {hpc_job_id}`` and shell globs.

    Args:
        template: the path; absolute once ``base_directory`` is filled in.
        base_directory: value of ``{base_directory}``; its characters are literal.
        root: the fixed folder if the template begins with a field of the beam; else ignored.

    Attributes:
        template: the template.
        folder: the fixed folder; nothing outside is searched.
        fields: fields of the beam that the template uses.

    Raises:
        LogPathError: unknown field, relative path, no fixed folder or a glob in it, ``**``, ``..``, or an open ``[``.
    """

    def __init__(self, template: str, *, base_directory: str | None = None, root: str | None = None) -> None:
        self.template = template
        begins_with_field = template.startswith("{") and not template.startswith(("{base_directory}", "{{"))
        base = None if base_directory is None else _escaped(base_directory)
        if begins_with_field and root is None:
            raise LogPathError(f"{template!r} begins with a field of the beam: write a fixed folder before it")
        self._glob = LogPathTemplate(
            template, base_directory=base, log_root=_escaped(root) if root is not None and begins_with_field else None
        )
        self.fields = self._glob.fields
        self._check_globs()
        folder = _unescaped(self._glob.folder)
        if folder is None:
            raise LogPathError(
                f"{template!r} has a glob before its first field of a beam; write the folder out, globs may follow it"
            )
        self.folder = folder

    def _check_globs(self) -> None:
        """Refuse globs that are not valid, not supported, or could lead out of the fixed folder."""
        shown = repr(self.template)
        text = "".join(literal + ("" if name is None else "x") for literal, name, *_ in _parsed(self.template))
        if "\0" in text:
            raise LogPathError(f"{shown} holds NUL")
        if text.endswith("/"):
            raise LogPathError(f"{shown} names a folder; write which files in it, such as {self.template + '*'!r}")
        for component in text.split("/"):
            if component == "..":
                raise LogPathError(f"{shown} holds '..'; write the folder that is meant")
            if "**" in component:
                raise LogPathError(f"{shown} holds '**'; write one * for each folder between two slashes")
            if not _is_closed(component):
                raise LogPathError(f"{shown} has a [ without ]; write [[] where the character itself is meant")
            try:
                _component(component)
            except re.error as error:
                raise LogPathError(f"{component!r} in {shown} is not a valid glob: {error}") from None

    def render(self, fields: Mapping[str, str | None]) -> tuple[Component, ...] | None:
        """Return where the file of one beam may be.

        Args:
            fields: the values of the beam; ``None`` for those that it lacks.

        Returns:
            Folders and name below :attr:`folder`; ``None`` if the beam lacks a field that the template uses.

        Raises:
            LogPathError: an id holds ``/``, ``..`` or NUL, or the path would leave the fixed folder.
        """
        for name in self.fields:
            value = fields.get(name)
            if value is not None and any(part in (".", "..") for part in value.split("/")):
                raise LogPathError(f"{name} holds '.' or '..' as a folder")
        escaped = {name: None if value is None else _escaped(value) for name, value in fields.items()}
        glob = self._glob.render(escaped)
        if glob is None:
            return None
        if len(glob) > _LONGEST_PATTERN:
            raise LogPathError("path is too long")
        below = glob[len(self._glob.folder) :].strip("/")
        return tuple(_component(component) for component in below.split("/"))


def _parsed(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    return list(string.Formatter().parse(template))
