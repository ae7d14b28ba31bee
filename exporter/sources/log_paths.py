"""Templates of log paths, such as ``{base_directory}/logs/{case_id}_{beam_id}.log``.

Ids come from a database that others write. So a rendered path must stay inside a fixed folder, whatever the ids are:
the part of the template before its first field of a beam, or ``log_root`` if the template begins with such a field.
The source checks where symbolic links lead.
"""

from __future__ import annotations

import posixpath
import string
from collections.abc import Iterable, Mapping

BEAM_FIELDS = frozenset({"case_id", "beam_id", "beam_path", "hpc_job_id"})
_ID_FIELDS = frozenset({"case_id", "beam_id", "hpc_job_id"})


class LogPathError(ValueError):
    """A template is not usable, or a rendered path would leave its folder."""


def _normal(path: str) -> str:
    """Remove ``.``, ``..`` and superfluous slashes, also a second slash at the beginning, which POSIX would keep."""
    normal = posixpath.normpath(path)
    return normal[1:] if normal.startswith("//") else normal


def inside(path: str, folders: Iterable[str]) -> bool:
    """Return whether a path is below one of the folders; links in both must be resolved already."""
    return any(path.startswith(folder if folder.endswith("/") else f"{folder}/") for folder in folders)


class LogPathTemplate:
    """A log path with fields ``{base_directory} {case_id} {beam_id} {beam_path} {hpc_job_id}``.

    Args:
        template: the path; absolute once ``base_directory`` is filled in.
        base_directory: value of ``{base_directory}``.
        log_root: folder that rendered paths must stay in; required if the template begins with a field of the beam.

    Attributes:
        fields: fields that the template uses, without ``base_directory``.
        folder: rendered paths stay in it.
        fixed_folder: the folder before the first field of a beam; ``log_root`` if the template begins with a field. It
            is the same for all beams, so it must exist.

    Raises:
        LogPathError: unknown field, relative path, or no fixed leading folder and no ``log_root``.
    """

    def __init__(self, template: str, *, base_directory: str | None = None, log_root: str | None = None) -> None:
        self.template = template
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise LogPathError(f"{template!r} is not a valid template: {error}") from None
        self._parts: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in parts:
            if name is not None and (spec or conversion):
                raise LogPathError(f"{{{name}}} takes no format in {template!r}")
            if name == "base_directory":
                if base_directory is None:
                    raise LogPathError(f"{template!r} uses {{base_directory}}, but base_directory is not set")
                literal, name = literal + base_directory, None
            elif name is not None and name not in BEAM_FIELDS:
                known = " ".join(f"{{{field}}}" for field in ["base_directory", *sorted(BEAM_FIELDS)])
                raise LogPathError(f"unknown field {{{name}}} in {template!r}; known: {known}")
            if self._parts and self._parts[-1][1] is None:
                literal = self._parts.pop()[0] + literal
            self._parts.append((literal, name))
        leading = self._parts[0][0] if self._parts else ""
        self.fields = frozenset(name for _, name in self._parts if name is not None)
        if not self.fields:
            raise LogPathError(f"{template!r} names no beam: use {{case_id}} or {{beam_id}}")
        if log_root is not None:
            if not log_root.startswith("/"):
                raise LogPathError(f"log_root {log_root!r} is not an absolute path")
            self.folder = _normal(log_root)
        elif leading.startswith("/"):
            self.folder = _normal(leading[: leading.rindex("/")] or "/")
        elif not leading:
            raise LogPathError(f"{template!r} begins with a field of the beam: set log_root on its source")
        if leading and not leading.startswith("/"):
            raise LogPathError(f"{template!r} is not an absolute path")
        self.fixed_folder = _normal(leading[: leading.rindex("/")] or "/") if leading else self.folder
        self._inside = self.folder if self.folder == "/" else f"{self.folder}/"

    def render(self, fields: Mapping[str, str | None]) -> str | None:
        """Return the path for one beam.

        Args:
            fields: the values of the beam; ``None`` for those that it lacks.

        Returns:
            The path; ``None`` if the beam lacks a field that the template uses.

        Raises:
            LogPathError: an id holds ``/`` or ``..``, or the path is relative or would leave the template's folder.
        """
        text = []
        for literal, name in self._parts:
            text.append(literal)
            if name is None:
                continue
            value = fields.get(name)
            if not value:
                return None
            if "\0" in value or (name in _ID_FIELDS and ("/" in value or ".." in value)):
                raise LogPathError(f"{name} holds '/', '..' or NUL")
            text.append(value)
        path = _normal("".join(text))
        if not path.startswith("/"):
            raise LogPathError(f"path is not absolute, so not in {self.folder}")
        if not path.startswith(self._inside) or path == self.folder:
            raise LogPathError(f"path leaves {self.folder}")
        return path
