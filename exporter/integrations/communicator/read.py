"""Reads the parts of the communicator's ``config.yaml`` that the exporter needs, in all its revisions.

Its paths refer to each other: ``{name}`` is another path of the same mode or of all modes, ``base_directory``, or a
field of the beam. ``ExecutionHandler`` says which mode applies, by the name of the handler that submits simulations. A
missing value or a value of another type is a mistake with its line and key. Values that may be secrets are never kept
or quoted.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from exporter.config.document import ConfigError, Document, Location, describe, key_path, quoted, read_text
from exporter.integrations.communicator.yaml_values import YamlValues, kind_of
from exporter.sources.log_paths import BEAM_FIELDS

SUBMITTER = "HpcJobSubmitter"
ROOT_VARIABLE = "MOQUI_SMC_ROOT"

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_ROUNDS = 8
"""Number of times that the communicator itself fills paths into each other."""
_LONGEST_PATH = 4096
_EMPTY_FIELDS = frozenset({"room", "room_path"})
"""Fields that the communicator replaces by nothing if their value is not given."""
_ROOMS = ("G1", "G2")
"""The rooms that the communicator knows; each has its own folder."""
_OUTPUT_FOLDERS: tuple[Location, ...] = (
    ("moqui_tps_parameters", "OutputDir"),
    ("paths", "MODE", "simulation_output_dir"),
    ("paths", "MODE", "final_dicom_dir"),
)
"""Keys that name folders of dose files: of the engine, of the communicator, and of converted files."""
_SECRET = re.compile(r"pass(?:word|phrase|wd)?$|secret|token|private_key$", re.IGNORECASE)

Mode = Literal["local", "remote"]


@dataclass(frozen=True, slots=True)
class CommunicatorSsh:
    """How the communicator reaches its host; ``None`` if a value is not given.

    Attributes:
        key: the section that it comes from.
        key_file: its private key, if it is an absolute path.
        odd_key_file: a key is given, but not as an absolute path.
        secrets: names of keys with a secret; their values are not kept.
    """

    key: str
    host: str
    port: int | None
    user: str | None
    key_file: str | None
    odd_key_file: bool
    connect_timeout_seconds: float | None
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A path in which only ``{base_directory}`` and fields of a beam are left.

    Attributes:
        key: its key in the file.
        text: the path.
        emptied: fields that were replaced by nothing.
    """

    key: str
    text: str
    emptied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """The section ``progress_tracking``, of the communicator's own kind or as in the development plan."""

    there: bool = False
    coarse_running: float | None = None
    planned: bool = False
    enabled: bool = True
    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    monitoring: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommunicatorConfig:
    """The values that were read.

    Attributes:
        file: name of the file, for comments.
        newest: whether it has the shape of the newest revision (``log_path``), not of the development plan's
            (``remote_log_path``).
        mode: where simulations run.
        mode_key: the key that says so; ``None`` if there is none.
        base_directory: an absolute path.
        base_directory_from: where that comes from.
        log, database: their paths.
        outputs: folders of dose files that contain the beam or its case.
        command_key: key of the command that starts a simulation; ``None`` if there is none.
        command_seen: whether the command starts the engine itself, not a script.
        redirected, errors_redirected: whether the command writes output and errors into the log.
        success, failure: completion markers, each a piece of a line.
    """

    file: str
    newest: bool
    mode: Mode
    mode_key: str | None
    base_directory: str
    base_directory_from: str
    log: Template
    outputs: tuple[Template, ...]
    database: Template
    ssh: CommunicatorSsh | None
    command_key: str | None
    command_seen: bool
    redirected: bool
    errors_redirected: bool
    success: tuple[str, ...]
    failure: tuple[str, ...]
    tracking: TrackingConfig


def read_communicator_config(path: Path, *, base_directory: str | None = None) -> CommunicatorConfig:
    """Read a ``config.yaml`` of the communicator.

    Args:
        path: the file.
        base_directory: overrides the one in the file.

    Raises:
        ConfigError: the file cannot be read or used; with file, line and key.
    """
    document = Document(read_text(path), str(path))
    if document.mistakes:
        raise ConfigError(each.shown(document.name) for each in document.mistakes)
    return _Reader(document, path).read(base_directory)


class _Reader(YamlValues):
    def __init__(self, document: Document, path: Path) -> None:
        super().__init__(document)
        self._path = path

    def read(self, base_directory: str | None) -> CommunicatorConfig:
        if not self.section(()).keys() & {"paths", "ExecutionHandler", "command_templates"}:
            raise self.mistake(("paths",), "is missing: this is not a configuration of the communicator")
        mode, mode_key = self._mode()
        base, base_from = self._base_directory(base_directory)
        log_name, newest = self._log_name(mode)
        command_key, command = self._command(mode)
        redirect = re.search(r">\s*['\"]?\{" + log_name + r"\}(.*)", command or "", re.DOTALL)
        return CommunicatorConfig(
            file=str(self._path),
            newest=newest,
            mode=mode,
            mode_key=mode_key,
            base_directory=base,
            base_directory_from=base_from,
            log=self._template(log_name, mode),
            outputs=tuple(self._outputs(mode)),
            database=self._database(mode, base),
            ssh=self._ssh() if mode == "remote" else None,
            command_key=command_key,
            command_seen="tps_env" in (command or ""),
            redirected=redirect is not None,
            errors_redirected=redirect is not None and "2>&1" in redirect[1],
            success=self._markers("success_pattern", "success_patterns"),
            failure=self._markers("failure_pattern", "failure_patterns"),
            tracking=self._tracking(),
        )

    # Which shape

    def _mode(self) -> tuple[Mode, str | None]:
        at = ("ExecutionHandler", SUBMITTER)
        value = self.text(at)
        if value is None:
            return "local", None
        if value not in ("local", "remote"):
            raise self.mistake(at, f"must be local or remote, not {describe(value)}")
        return ("remote" if value == "remote" else "local"), key_path(at)

    def _log_name(self, mode: Mode) -> tuple[str, bool]:
        for name in ("log_path", "remote_log_path"):
            if self._find(name, mode) is not None:
                return name, name == "log_path"
        at = ("paths", mode, "log_path")
        raise self.mistake(at, "is missing, and so is remote_log_path: without one of them nobody knows where logs are")

    def _command(self, mode: Mode) -> tuple[str | None, str | None]:
        for name in ("submit_simulation", "remote_submit_simulation"):
            at = ("command_templates", mode, name)
            command = self.text(at)
            if command is not None:
                return key_path(at), command
        return None, None

    # Paths

    def _base_directory(self, given: str | None) -> tuple[str, str]:
        at = ("paths", "base_directory")
        if given is not None:
            return given, "--base-directory"
        value = self.text(at)
        if not value:
            return self._root()
        if not value.startswith("/"):
            wrong = f"{quoted(value)} is not an absolute path on this kind of machine"
            raise self.mistake(at, f"{wrong}; say with --base-directory where it is for the exporter")
        return value, key_path(at)

    def _root(self) -> tuple[str, str]:
        """The communicator's own rule for an empty base directory."""
        from_environment = os.environ.get(ROOT_VARIABLE, "")
        if from_environment.startswith("/"):
            return from_environment, f"{ROOT_VARIABLE} in the environment, since paths.base_directory is empty"
        folder = self._path.absolute().parent
        if folder.name == "config" and folder.parent != folder.parent.parent:
            around = "the folder around the communicator's, since paths.base_directory is empty"
            return str(folder.parent.parent), around
        wrong = f"is empty, {ROOT_VARIABLE} is not set, and the file is not in the communicator's folder config"
        raise self.mistake(("paths", "base_directory"), f"{wrong}; say it with --base-directory")

    def _find(self, name: str, mode: Mode) -> Location | None:
        """Return the location of a path with this name, in the section of its mode or of all modes."""
        for at in (("paths", mode, name), ("paths", name)):
            if self.text(at) is not None:
                return at
        return None

    def _template(self, name: str, mode: Mode) -> Template:
        at = self._find(name, mode)
        if at is None:
            raise self.mistake(("paths", mode, name), "is missing")
        return self._filled(at, self.text(at) or "", mode)

    def _filled(self, at: Location, text: str, mode: Mode, room: str = "") -> Template:
        """A text with other paths filled in, as the communicator does it; ``room`` is that of the simulation."""
        emptied: list[str] = []

        def put(match: re.Match[str]) -> str:
            field_name = match[1]
            if field_name == "base_directory" or field_name in BEAM_FIELDS:
                return match[0]
            found = self._find(field_name, mode)
            if found is not None:
                return self.text(found) or ""
            if field_name in _EMPTY_FIELDS:
                emptied.append(field_name)
                return f"{room}/" if room and field_name == "room_path" else room
            known = "another path, base_directory, or a column of the table beams"
            raise self.mistake(at, f"{{{field_name}}} is not known: neither {known}")

        for _ in range(_ROUNDS):
            before, text = text, _PLACEHOLDER.sub(put, text)
            if len(text) > _LONGEST_PATH:
                break
            if before == text:
                return Template(key_path(at), text, tuple(dict.fromkeys(emptied)))
        raise self.mistake(at, "its placeholders lead back to themselves")

    def _database(self, mode: Mode, base: str) -> Template:
        # The database is always on the communicator's machine.
        where: Mode = "local" if self._find("database_path", "local") is not None else mode
        template = self._template("database_path", where)
        text = template.text.replace("{base_directory}", base)
        at = tuple(template.key.split("."))
        if not text.startswith("/"):
            raise self.mistake(
                at, f"{quoted(text)} is not an absolute path; the communicator's working directory is not known here"
            )
        if "{" in text:
            raise self.mistake(at, "differs from beam to beam")
        return Template(template.key, text, template.emptied)

    # Dose files

    def _outputs(self, mode: Mode) -> Iterator[Template]:
        """Folders that the file names for dose files; what does not fit is left out, since this is a proposal."""
        found: set[str] = set()
        for named in _OUTPUT_FOLDERS:
            at = tuple(mode if part == "MODE" else part for part in named)
            for room in ("", *_ROOMS):
                try:
                    template = self._output(at, mode, room)
                except ConfigError:
                    break
                if template is None or (room and not template.emptied):
                    break
                if template.text not in found:
                    found.add(template.text)
                    yield template

    def _output(self, at: Location, mode: Mode, room: str) -> Template | None:
        text = self.text(at)
        if not text or re.match(r"[A-Za-z]:", text):
            return None
        if not text.startswith(("/", "{")):
            # A relative path is relative to the folder in which the engine runs.
            text = f"{{mqi_run_dir}}/{text}"
        template = self._filled(at, text, mode, room)
        normal = posixpath.normpath(template.text)
        fixed = normal.startswith("{base_directory}/") or (normal.startswith("/") and normal[1:2] not in ("", "{"))
        if not fixed or not set(_PLACEHOLDER.findall(normal)) & BEAM_FIELDS or ".." in normal.split("/"):
            return None
        return replace(template, text=normal)

    # Connection

    def _ssh(self) -> CommunicatorSsh:
        # The development plan's revision reads the top-level section; it ships placeholders in connections.hpc.
        at: Location = ("hpc",) if self.section(("hpc",)) else ("connections", "hpc")
        host = self.text((*at, "host"))
        if not host:
            raise self.mistake((*at, "host"), f"is missing, but ExecutionHandler.{SUBMITTER} is remote")
        if not re.fullmatch(r"[\w.:%-]+", host):
            raise self.mistake((*at, "host"), "is no host name or address")
        port, timeout = self.number((*at, "port")), self.number((*at, "connection_timeout_seconds"))
        if port is not None and (port != int(port) or not 1 <= port <= 65535):
            raise self.mistake((*at, "port"), "is no port")
        key = self.text((*at, "ssh_key_path"))
        usable = key is not None and re.fullmatch(r"/[^\n]{0,1000}", key) is not None
        return CommunicatorSsh(
            key=key_path(at),
            host=host,
            port=None if port is None else int(port),
            user=self.text((*at, "user")) or None,
            key_file=key if usable else None,
            odd_key_file=bool(key) and not usable,
            connect_timeout_seconds=timeout if timeout is not None and timeout > 0 else None,
            secrets=tuple(self._secrets(at)),
        )

    def _secrets(self, at: Location) -> Iterator[str]:
        for name, value in self.section(at).items():
            if _SECRET.search(name) and value not in (None, ""):
                yield key_path((*at, name))

    # What the log says

    def _markers(self, *names: str) -> tuple[str, ...]:
        found: list[str] = []
        for name in names:
            found += self.texts(("completion_markers", name))
        return tuple(dict.fromkeys(each for each in found if each.strip()))

    def _tracking(self) -> TrackingConfig:
        at: Location = ("progress_tracking",)
        section = self.section(at)
        enabled = section.get("enabled", True)
        if not isinstance(enabled, bool):
            raise self.mistake((*at, "enabled"), f"must be true or false, not {kind_of(enabled)}")
        patterns = {
            name: texts for name in ("total_batches", "current_batch") if (texts := self.texts((*at, "patterns", name)))
        }
        monitoring = {
            name: value
            for name in ("poll_interval_seconds", "update_throttle_percent", "timeout_seconds")
            if (value := self.number((*at, "monitoring", name))) is not None
        }
        return TrackingConfig(
            there=bool(section),
            coarse_running=self.number((*at, "coarse_phase_progress", "HPC_RUNNING")),
            planned=bool(patterns or monitoring or "enabled" in section),
            enabled=enabled,
            patterns=patterns,
            monitoring=monitoring,
        )
