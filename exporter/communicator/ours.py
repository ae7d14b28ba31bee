"""A configuration of this exporter, made from what the communicator's says.

Each value is commented with the key it was taken from. What cannot be known from their file, and what is dangerous to
believe, is collected in a list of things to check by hand, which stands on top of what is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from exporter.communicator.theirs import SUBMITTER, Ssh, Theirs, read_theirs
from exporter.config import ConfigError, settings_from
from exporter.config.values import compiled
from exporter.logs.events import PhaseEntered, RunFailed, RunSucceeded
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.logs.patterns import PLAN_PATTERNS

_WIDTH = 118
_OWN_RANGES = {40.0: (40, 90), 70.0: (30, 90)}
"""What the communicator writes for 0 and 100 % of the batches, by what it writes when a simulation starts."""
_LONGEST_CONNECT_SECONDS = 60
_MONITORING_RANGES = {
    "poll_interval_seconds": (0.01, 3600.0),
    "update_throttle_percent": (0.0, 100.0),
    "timeout_seconds": (0.001, 2592000.0),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What was made.

    Attributes:
        text: the configuration, as YAML.
        checks: what somebody must look at before it is used; also in ``text``.
    """

    text: str
    checks: tuple[str, ...]


def ours(path: Path, *, base_directory: str | None = None) -> Draft:
    """Make a configuration from the communicator's.

    Args:
        path: its ``config.yaml``, of either revision.
        base_directory: instead of the one that the file names.

    Raises:
        ConfigError: the file cannot be read or used; file, line and key are named.
    """
    draft = _Writer(read_theirs(path, base_directory=base_directory)).draft()
    try:
        settings_from(draft.text, "the configuration made from it")
    except ConfigError as error:
        raise ConfigError(f"{path}: cannot be used: {mistake}" for mistake in error.mistakes) from error
    return draft


@dataclass
class _Section:
    lines: list[str] = field(default_factory=list)

    def comment(self, text: str, indent: int = 0) -> None:
        self.lines += _wrapped(text, " " * indent + "# ")

    def put(self, key: str, value: object, indent: int = 0) -> None:
        self.lines.append(f"{' ' * indent}{key}: {_yaml(value)}")

    def line(self, text: str) -> None:
        self.lines.append(text)


class _Writer:
    def __init__(self, theirs: Theirs) -> None:
        self._theirs = theirs
        self._checks: list[str] = []

    def draft(self) -> Draft:
        sections = [
            self._base_directory(),
            self._sources(),
            self._discovery(),
            self._database(),
            self._mirror(),
            self._tracking(),
            self._markers(),
        ]
        head = _Section()
        shape = "log_path: the newest revision" if self._theirs.newest else "remote_log_path: the plan's revision"
        head.comment(
            f"Made by `mqi-exporter init` from the communicator's {_one_line(self._theirs.file)} "
            f"(it has {shape}, or near it). Behind `theirs:` stands the key that a value was taken from."
        )
        head.line("#")
        head.comment("To check by hand:")
        for number, check in enumerate(self._checks, start=1):
            head.lines += _wrapped(check, "#    ", f"# {number}. ")
        texts = ["\n".join(section.lines) for section in (head, *sections) if section.lines]
        return Draft("\n\n".join(texts) + "\n", tuple(self._checks))

    def _check(self, text: str) -> None:
        self._checks.append(text)

    def _base_directory(self) -> _Section:
        theirs, section = self._theirs, _Section()
        section.comment(f"theirs: {theirs.base_directory_from}")
        section.put("base_directory", theirs.base_directory)
        if theirs.base_directory_from.startswith("the folder") or "environment" in theirs.base_directory_from:
            self._check(f"base_directory: taken from {theirs.base_directory_from}.")
        return section

    # Sources

    def _sources(self) -> _Section:
        theirs, section = self._theirs, _Section()
        section.line("sources:")
        if theirs.mode_key is None:
            self._check(f"sources: theirs has no ExecutionHandler.{SUBMITTER}; simulations are taken to run here.")
        if theirs.ssh is None:
            section.comment(f"theirs: {theirs.log.key}", 2)
            section.line("  - name: local")
            section.put("kind", "local", 4)
            section.put("log_path", self._log_path(), 4)
        else:
            self._ssh_source(section, theirs.ssh)
        if theirs.log.emptied:
            fields = ", ".join(f"{{{name}}}" for name in theirs.log.emptied)
            self._check(f"log_path: theirs uses {fields}, which is left out; add a template for each of its values.")
        self._check_command()
        return section

    def _log_path(self) -> str:
        template, user = self._theirs.log.text, self._theirs.ssh.user if self._theirs.ssh is not None else None
        if template.startswith("~/") and user is not None:
            self._check(
                f"log_path: theirs begins with ~, taken to be /home/{user} on the host; write where it really is."
            )
            return f"/home/{user}{template[1:]}"
        if not template.startswith(("/", "{base_directory}")):
            wrong = f"{template!r} is not an absolute path; write it from / on, in a copy of the file"
            raise ConfigError([f"{self._theirs.file}: {self._theirs.log.key}: {wrong}"])
        return template

    def _ssh_source(self, section: _Section, ssh: Ssh) -> None:
        section.comment(f"theirs: {self._theirs.log.key}, {ssh.key}", 2)
        section.line("  - name: hpc")
        section.put("kind", "ssh", 4)
        section.put("host", ssh.host, 4)
        if ssh.port is not None:
            section.put("port", ssh.port, 4)
        if ssh.user is not None:
            section.put("user", ssh.user, 4)
        else:
            self._check("sources[0].user: theirs names none; the exporter's own user name is used.")
        self._login(section, ssh)
        section.comment("Theirs trusts every host; the exporter trusts only the keys in this file.", 4)
        section.put("known_hosts_file", "/etc/mqi-exporter/known_hosts", 4)
        self._check(
            "sources[0].known_hosts_file: write the host's key there (docs/remote-logs.md): theirs never checked it."
        )
        if ssh.connect_timeout_seconds is not None:
            section.put("connect_timeout_seconds", min(_LONGEST_CONNECT_SECONDS, ssh.connect_timeout_seconds), 4)
        section.put("log_path", self._log_path(), 4)
        if "{base_directory}" in self._theirs.log.text:
            self._check(
                "sources[0].log_path: theirs fills in the base directory of its own machine; write the host's folder "
                "where that is another one."
            )

    def _login(self, section: _Section, ssh: Ssh) -> None:
        if ssh.key_file is not None:
            section.put("key_file", ssh.key_file, 4)
            self._check(
                "sources[0].key_file: it is the communicator's own key. The exporter's user must be able to read it; "
                "better, make an account and a key that may only read logs (docs/remote-logs.md)."
            )
        else:
            reason = (
                f"what {ssh.key}.ssh_key_path holds is no absolute path" if ssh.odd_key_file else "theirs names none"
            )
            self._check(f"sources[0].key_file: {reason}; write it.")
        for secret in ssh.secrets:
            own = "passphrase_file" if "phrase" in secret.lower() else "password_file"
            section.comment(f"theirs: {secret} (not copied)", 4)
            section.line(f"    # {own}: /etc/mqi-exporter/hpc_{own.removesuffix('_file')}")
            self._check(
                f"sources[0].{own}: {secret} is a secret and was not copied; put it into a file that only the "
                "exporter's user may read, and name that file."
            )

    def _check_command(self) -> None:
        theirs = self._theirs
        log_name = theirs.log.key.rpartition(".")[2]
        if theirs.command_key is None or not (theirs.command_seen or theirs.redirected):
            what = theirs.command_key or f"theirs has no command for {theirs.mode} simulations, so what starts them"
            self._check(f"log: {what} does not show where the log goes; see that it ends in `> {{{log_name}}} 2>&1`.")
        elif not theirs.redirected:
            self._check(
                f"NO LOG IS WRITTEN: {theirs.command_key} does not redirect the simulation's output, so there is "
                f"nothing to follow. Let it end in ` > {{{log_name}}} 2>&1`, and make the folder: nobody else does."
            )
        elif not theirs.errors_redirected:
            self._check(f"{theirs.command_key} has no `2>&1`: the causes of failures do not reach the log.")

    # The table

    def _discovery(self) -> _Section:
        section = _Section()
        section.comment(
            "Which beams there are is read from the table beams. The exporter's own lists of statuses hold those of "
            "both revisions, so none are written here."
        )
        section.line("discovery:")
        section.put("kind", "database", 2)
        return section

    def _database(self) -> _Section:
        theirs, section = self._theirs, _Section()
        section.line("database:")
        section.comment(f"theirs: {theirs.database.key}", 2)
        section.put("path", theirs.database.text, 2)
        self._check(
            "database.path: the exporter must run on the communicator's machine, as a user that may write this file, "
            "its -wal and -shm, and their folder."
        )
        if theirs.newest:
            section.comment("This revision has the column progress.", 2)
            section.put("migrate", False, 2)
        else:
            section.comment("This revision has no column progress; it is added once. false: `mqi-exporter migrate`.", 2)
            section.put("migrate", True, 2)
            self._check(
                "database.migrate: adds the column progress to the communicator's table. Its screens do not show it "
                "yet (docs/communicator.md)."
            )
        return section

    def _mirror(self) -> _Section:
        tracking, section = self._theirs.tracking, _Section()
        own = None if tracking.coarse_running is None else _OWN_RANGES.get(tracking.coarse_running)
        section.line("mirror:")
        if tracking.planned and tracking.enabled:
            section.comment(
                "theirs: progress_tracking, as the plan has it: the communicator writes progress itself.", 2
            )
            section.put("enabled", False, 2)
            self._check(
                "mirror.enabled: theirs writes the column itself, so the exporter does not. To let the exporter do it, "
                "set progress_tracking.enabled to false in theirs and this to true."
            )
        elif own is not None:
            section.comment(
                "theirs: progress_tracking.coarse_phase_progress.HPC_RUNNING. The communicator writes this range "
                "itself, but only twice a minute. The same range keeps its bar from jumping.",
                2,
            )
            section.put("enabled", True, 2)
            section.put("range", list(own), 2)
            self._check(
                f"mirror.range: {list(own)} agrees with what this communicator writes; its screens read other ranges "
                "(docs/communicator.md). Where the column is not to be written by two, set mirror.enabled to false."
            )
        elif (tracking.there and not tracking.planned) or self._theirs.newest:
            section.comment("It writes progress itself, on a scale that its configuration does not tell.", 2)
            section.put("enabled", False, 2)
            self._check(
                "mirror.enabled: on which scale this communicator writes progress is not known; look what it writes, "
                "set mirror.range to the same, and this to true."
            )
        else:
            section.comment("This revision writes no progress of its own: 0 and 100 % are written as they are.", 2)
            section.put("enabled", True, 2)
            section.put("range", [0, 100], 2)
        return section

    # Logs

    def _tracking(self) -> _Section:
        tracking, section = self._theirs.tracking, _Section()
        patterns = {
            name: [text for text in texts if text.encode() not in PLAN_PATTERNS]
            for name, texts in tracking.patterns.items()
        }
        patterns = {name: texts for name, texts in patterns.items() if texts}
        for name, texts in patterns.items():
            for text in texts:
                _valid_pattern(self._theirs.file, f"progress_tracking.patterns.{name}", text)
        monitoring = {}
        for name, value in tracking.monitoring.items():
            low, high = _MONITORING_RANGES[name]
            monitoring[name] = min(high, max(low, value))
            if monitoring[name] != value:
                self._check(f"progress_tracking.monitoring.{name}: theirs is {value:g}, which is not possible here.")
        if not patterns and not monitoring:
            return section
        section.line("progress_tracking:")
        if patterns:
            section.comment("theirs: progress_tracking.patterns", 2)
            section.line("  patterns:")
            for name, texts in patterns.items():
                section.put(name, texts, 4)
        if monitoring:
            section.comment(
                "theirs: progress_tracking.monitoring. The timeout is counted from the log's last growth.", 2
            )
            section.line("  monitoring:")
            for name, value in monitoring.items():
                section.put(name, value, 4)
        return section

    def _markers(self) -> _Section:
        theirs, section = self._theirs, _Section()
        kept: dict[str, list[str]] = {}
        left_out: list[str] = []
        for key, texts in (("success_patterns", theirs.success), ("failure_patterns", theirs.failure)):
            for text in texts:
                known = _meaning(text)
                if known in (None, "phase"):
                    if known == "phase" and key == "success_patterns":
                        left_out.append(f"{_one_line(text)} (printed before the dose is saved: no end)")
                        self._check(
                            f"completion_markers: {_one_line(text)} is not taken for the end of a run: the engine "
                            "prints it before it saves the dose, which may fail."
                        )
                        continue
                    kept.setdefault(key, []).append(_escaped(text))
                else:
                    left_out.append(_one_line(text))
        if left_out:
            section.comment(f"theirs: completion_markers. Built in, so not repeated here: {', '.join(left_out)}.")
        if kept:
            section.comment(
                "theirs: completion_markers. Theirs are searched anywhere in a line, as these regular expressions are."
            )
            section.line("completion_markers:")
            for key, patterns in kept.items():
                section.put(key, patterns, 2)
            self._check(
                "completion_markers: try them on logs of good and of failed runs with `mqi-exporter verify`: a failure "
                "pattern that also stands in a good run makes it failed."
            )
        return section


def _meaning(text: str) -> str | None:
    """What the exporter reads in a line that begins with a marker, without being told; ``None`` for nothing."""
    if text.encode() in PLAN_PATTERNS:
        return "end"
    for line in (text, f"{text} 1"):
        for event in TpsLogParser(SitePatterns()).feed(line.encode() + b"\n"):
            if isinstance(event, (RunFailed, RunSucceeded)):
                return "end"
            if isinstance(event, PhaseEntered):
                return "phase"
    return None


def _valid_pattern(file: str, key: str, text: str) -> None:
    try:
        compiled(text)
    except ValueError as error:
        raise ConfigError([f"{file}: {key}: {error}"]) from error


def _escaped(text: str) -> str:
    """A piece of a line as a regular expression, with no more backslashes than needed."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)


def _yaml(value: object) -> str:
    """A value on one line: JSON is YAML."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w/.-]*", value) and value.lower() not in _WORDS:
        return value
    return _one_line(value) if isinstance(value, str) else json.dumps(value)


_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def _one_line(text: str) -> str:
    """Text in quotes; what would end the line, or show nothing, is written as an escape."""
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(text, ensure_ascii=False)
    )


def _wrapped(text: str, prefix: str, first: str | None = None) -> Iterable[str]:
    """Comment lines that are not too long."""
    lines, line = [], first or prefix
    empty = True
    for word in text.split():
        if not empty and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line, empty = prefix, True
        line += word if empty else f" {word}"
        empty = False
    return [*lines, line]
