"""Writes a configuration of this exporter from the communicator's.

A comment at each value names the key that it comes from. A list at the top of the file names what must be checked by
hand: what the communicator's file does not say, and what is dangerous to assume.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from exporter.beams import statuses
from exporter.config import ConfigError, settings_from
from exporter.config.sections import DiscoverySettings
from exporter.config.values import compile_pattern
from exporter.integrations.communicator.progress_scale import infer_scale
from exporter.integrations.communicator.read import (
    SUBMITTER,
    CommunicatorConfig,
    CommunicatorSsh,
    read_communicator_config,
)
from exporter.integrations.communicator.table import CommunicatorTable, TableState, inspect_table
from exporter.integrations.communicator.yaml_text import YamlSection, one_line, wrapped, yaml_value
from exporter.logs.events import PhaseEntered, RunFailed, RunSucceeded
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.logs.patterns import DEVELOPMENT_PLAN_PATTERNS
from exporter.sources.log_paths import LogPathError
from exporter.sources.output_paths import OutputPathTemplate

_VALUES_SHOWN = 8
_FILES_LOOKED_AT = 100
_DISCOVERY = DiscoverySettings()
_KNOWN_STATUSES = frozenset(
    (
        *_DISCOVERY.terminal_statuses,
        *_DISCOVERY.post_run_statuses,
        *_DISCOVERY.simulating_statuses,
        *_DISCOVERY.reset_statuses,
        *statuses.BEFORE_SIMULATION,
    )
)
_PLACEHOLDER_HOST = re.compile(r"example\.(?:com|org|net)$|placeholder", re.IGNORECASE)
_LONGEST_CONNECT_SECONDS = 60
_MONITORING_RANGES = {
    "poll_interval_seconds": (0.01, 3600.0),
    "update_throttle_percent": (0.0, 100.0),
    "timeout_seconds": (0.001, 2592000.0),
}


@dataclass(frozen=True, slots=True)
class ConfigDraft:
    """The configuration that was made.

    Attributes:
        text: the configuration, as YAML.
        checks: what somebody must check before it is used; also in ``text``.
    """

    text: str
    checks: tuple[str, ...]


def draft_config(path: Path, *, base_directory: str | None = None, database: Path | None = None) -> ConfigDraft:
    """Make a configuration from the communicator's configuration and table.

    Args:
        path: the communicator's ``config.yaml``, of any revision.
        base_directory: overrides the one in the file.
        database: path of the database, or of a copy, instead of the one in the file.

    Raises:
        ConfigError: the file cannot be read or used; with file, line and key.
    """
    config = read_communicator_config(path, base_directory=base_directory)
    table = inspect_table(Path(config.database.text) if database is None else database)
    draft = _Writer(config, table).draft()
    try:
        settings_from(draft.text, "the configuration made from it")
    except ConfigError as error:
        raise ConfigError(f"{path}: cannot be used: {mistake}" for mistake in error.mistakes) from error
    return draft


class _Writer:
    def __init__(self, config: CommunicatorConfig, table: CommunicatorTable) -> None:
        self._config = config
        self._table = table
        self._checks: list[str] = []

    def draft(self) -> ConfigDraft:
        sections = [
            self._base_directory(),
            self._sources(),
            self._discovery(),
            self._database(),
            self._mirror(),
            self._tracking(),
            self._markers(),
        ]
        head = YamlSection()
        shape = (
            "log_path: the newest revision"
            if self._config.newest
            else "remote_log_path: the development plan's revision"
        )
        head.comment(
            f"Made by `mqi-exporter init` from the communicator's {one_line(self._config.file)} "
            f"(it has {shape}, or near it). Each `communicator:` comment names the key that a value comes from."
        )
        head.comment(self._table_words())
        head.line("#")
        head.comment("To check by hand:")
        for number, check in enumerate(self._checks, start=1):
            head.lines += wrapped(check, "#    ", f"# {number}. ")
        texts = ["\n".join(section.lines) for section in (head, *sections) if section.lines]
        return ConfigDraft("\n\n".join(texts) + "\n", tuple(self._checks))

    def _check(self, text: str) -> None:
        self._checks.append(text)

    def _table_words(self) -> str:
        """Return what was found in the table, or why it was not read."""
        table = self._table
        where = f"Its database {one_line(table.path)}"
        if table.state is not TableState.READ:
            return (
                f"{where} could not be read: {one_line(table.problem)[1:-1]}. Some values are assumptions; see below."
            )
        values = ", ".join(f"{value:.6g}" for value in table.values[:_VALUES_SHOWN])
        more = ", ..." if len(table.values) > _VALUES_SHOWN else ""
        progress = (
            f"a column progress (values: {values or 'none'}{more})" if table.has_progress else "no column progress"
        )
        statuses = ", ".join(one_line(status)[1:-1] for status in table.statuses) or "none"
        return (
            f"{where} was read and not changed: its table beams has {progress}, {table.rows} rows, statuses: "
            f"{statuses}; hpc_job_id is filled in {table.job_ids} of them."
        )

    def _base_directory(self) -> YamlSection:
        config, section = self._config, YamlSection()
        section.comment(f"communicator: {config.base_directory_from}")
        section.put("base_directory", config.base_directory)
        if config.base_directory_from.startswith("the folder") or "environment" in config.base_directory_from:
            self._check(f"base_directory: taken from {config.base_directory_from}.")
        return section

    # Sources

    def _sources(self) -> YamlSection:
        config, section = self._config, YamlSection()
        section.line("sources:")
        if config.mode_key is None:
            self._check(
                f"sources: the communicator has no ExecutionHandler.{SUBMITTER}; simulations are taken to run here."
            )
        if config.ssh is None:
            section.comment(f"communicator: {config.log.key}", 2)
            section.line("  - name: local")
            section.put("kind", "local", 4)
            section.put("log_path", self._log_path(), 4)
        else:
            self._ssh_source(section, config.ssh)
        self._output_path(section)
        if config.log.emptied:
            fields = ", ".join(f"{{{name}}}" for name in config.log.emptied)
            self._check(
                f"log_path: the communicator uses {fields}, which is left out; add a template for each of its values."
            )
        self._check_command()
        return section

    def _log_path(self) -> str:
        template, user = self._config.log.text, self._config.ssh.user if self._config.ssh is not None else None
        if template.startswith("~/") and user is not None:
            self._check(f"log_path: it begins with ~, assumed to be /home/{user} on the host; write the real folder.")
            return f"/home/{user}{template[1:]}"
        if not template.startswith(("/", "{base_directory}")):
            wrong = f"{template!r} is not an absolute path; write it from / on, in a copy of the file"
            raise ConfigError([f"{self._config.file}: {self._config.log.key}: {wrong}"])
        return template

    def _output_path(self, section: YamlSection) -> None:
        """Write the folder of dose files, if the communicator names one. It is commented out if no files are there."""
        templates = [each for each in self._config.outputs if _is_output_path(f"{_as_glob(each.text)}/*")]
        if not templates:
            return
        paths = [f"{_as_glob(template.text)}/*" for template in templates]
        keys = ", ".join(dict.fromkeys(template.key for template in templates))
        rooms = " The rooms are assumed to be G1 and G2." if any(template.emptied for template in templates) else ""
        if self._config.mode == "local" and any(_has_files(self._config.base_directory, path) for path in paths):
            section.comment(
                f"communicator: {keys}. Dose files are there. A run has succeeded only when it wrote one.", 4
            )
            section.put("output_path", paths, 4)
            self._check(
                "sources[0].output_path: check that each run writes a dose file there; a run without one is shown as "
                f"failed (output_missing).{rooms}"
            )
            return
        section.comment(f"communicator: {keys}. A proposal: no dose file was found there from this machine.", 4)
        section.line(f"    # output_path: {yaml_value(paths)}")
        self._check(
            "sources[0].output_path: with it, a run succeeds only if its dose file is there. Remove the # "
            f"if dose files are written to these folders.{rooms}"
        )

    def _ssh_source(self, section: YamlSection, ssh: CommunicatorSsh) -> None:
        section.comment(f"communicator: {self._config.log.key}, {ssh.key}", 2)
        section.line("  - name: hpc")
        section.put("kind", "ssh", 4)
        section.put("host", ssh.host, 4)
        if ssh.port is not None:
            section.put("port", ssh.port, 4)
        if ssh.user is not None:
            section.put("user", ssh.user, 4)
        else:
            self._check("sources[0].user: the communicator names none; the exporter's own user name is used.")
        self._check_section(ssh)
        self._login(section, ssh)
        section.comment("The communicator trusts every host; the exporter trusts only the keys in this file.", 4)
        section.put("known_hosts_file", "/etc/mqi-exporter/known_hosts", 4)
        self._check(
            "sources[0].known_hosts_file: write the host's key there (docs/remote-logs.md); "
            "the communicator never checks it."
        )
        if ssh.connect_timeout_seconds is not None:
            section.put("connect_timeout_seconds", min(_LONGEST_CONNECT_SECONDS, ssh.connect_timeout_seconds), 4)
        section.put("log_path", self._log_path(), 4)
        if "{base_directory}" in self._config.log.text:
            self._check(
                "sources[0].log_path: the communicator fills in the base directory of its own machine; write the "
                "host's folder if it is another one."
            )

    def _check_section(self, ssh: CommunicatorSsh) -> None:
        """The communicator's code and the file that it ships name different sections for the host."""
        if ssh.key == "connections.hpc":
            looks = " Its value looks like a placeholder." if _PLACEHOLDER_HOST.search(ssh.host) else ""
            self._check(
                "sources[0].host: taken from connections.hpc. The development plan's revision reads only a top-level "
                f"section hpc, and there is none.{looks} Write the host that is used."
            )

    def _login(self, section: YamlSection, ssh: CommunicatorSsh) -> None:
        if ssh.key_file is not None:
            section.put("key_file", ssh.key_file, 4)
            self._check(
                "sources[0].key_file: it is the communicator's own key. The exporter's user must be able to read it; "
                "better, make an account and a key that may only read logs (docs/remote-logs.md)."
            )
        else:
            reason = (
                f"what {ssh.key}.ssh_key_path holds is no absolute path"
                if ssh.odd_key_file
                else "the communicator names none"
            )
            self._check(f"sources[0].key_file: {reason}; write it.")
        for secret in ssh.secrets:
            own = "passphrase_file" if "phrase" in secret.lower() else "password_file"
            section.comment(f"communicator: {secret} (not copied)", 4)
            section.line(f"    # {own}: /etc/mqi-exporter/hpc_{own.removesuffix('_file')}")
            self._check(
                f"sources[0].{own}: {secret} is a secret and was not copied; put it into a file that only the "
                "exporter's user may read, and name that file."
            )

    def _check_command(self) -> None:
        config = self._config
        log_name = config.log.key.rpartition(".")[2]
        if config.command_key is None or not (config.command_seen or config.redirected):
            what = config.command_key or f"there is no command for {config.mode} simulations, so what starts them"
            self._check(f"log: {what} does not show where the log goes; check that it ends in `> {{{log_name}}} 2>&1`.")
        elif not config.redirected:
            self._check(
                f"NO LOG IS WRITTEN: {config.command_key} does not redirect the simulation's output, so there is "
                f"nothing to follow. Let it end in ` > {{{log_name}}} 2>&1`, and make the folder: nobody else does."
            )
        elif not config.errors_redirected:
            self._check(f"{config.command_key} has no `2>&1`: the causes of failures do not reach the log.")

    # The table

    def _discovery(self) -> YamlSection:
        section = YamlSection()
        section.comment(
            "Which beams there are is read from the table beams. The exporter's own lists of statuses hold those of "
            "both revisions, so none are written here."
        )
        section.line("discovery:")
        section.put("kind", "database", 2)
        return section

    def _database(self) -> YamlSection:
        config, section = self._config, YamlSection()
        section.line("database:")
        section.comment(f"communicator: {config.database.key}", 2)
        section.put("path", config.database.text, 2)
        self._check(
            "database.path: the exporter must run on the communicator's machine, as a user that may write this file, "
            "its -wal and -shm, and their folder."
        )
        self._migrate(section)
        self._check_rows()
        return section

    def _migrate(self, section: YamlSection) -> None:
        config, table = self._config, self._table
        if table.state is TableState.READ:
            missing = not table.has_progress
            section.comment(f"The table has {'no' if missing else 'the'} column progress.", 2)
        else:
            missing = not config.newest
            section.comment(f"Assumed of the table: {'no' if missing else 'the'} column progress.", 2)
            self._check(
                f"database: {one_line(table.path)} could not be read ({one_line(table.problem)[1:-1]}). Make this "
                "file again where it can be read, or with --database COPY."
            )
        section.put("migrate", missing, 2)
        if missing:
            section.comment("It is added once. false: `mqi-exporter migrate` adds it when it suits.", 2)
            self._check(
                "database.migrate: adds the column progress to the communicator's table. Its screens do not show it "
                "yet (docs/communicator.md)."
            )

    def _check_rows(self) -> None:
        """Report rows that fit neither the exporter's defaults nor the log path."""
        table = self._table
        if table.state is not TableState.READ:
            return
        unknown = [status for status in table.statuses if status not in _KNOWN_STATUSES]
        if unknown:
            shown = ", ".join(one_line(status) for status in unknown)
            self._check(
                f"discovery: the table holds statuses that the exporter does not know: {shown}. If one of them means "
                "that a beam is over, add it to terminal_statuses."
            )
        if table.rows and not table.job_ids and "{hpc_job_id}" in self._config.log.text:
            self._check("log_path: it uses {hpc_job_id}, which is empty in every row: no log will be found.")

    def _mirror(self) -> YamlSection:
        tracking, section = self._config.tracking, YamlSection()
        section.line("mirror:")
        if tracking.planned and tracking.enabled:
            section.comment(
                "communicator: progress_tracking, as in the development plan: the communicator writes progress itself.",
                2,
            )
            section.put("enabled", False, 2)
            self._check(
                "mirror.enabled: the communicator writes the column itself, so the exporter does not. To let the "
                "exporter write it, set progress_tracking.enabled to false in its configuration and this to true."
            )
            return section
        writing = infer_scale(self._config, self._table)
        section.comment(writing.reason, 2)
        if writing.range is None:
            section.put("enabled", False, 2)
            self._check(
                "mirror.enabled: on which scale this communicator writes progress is not known; look what it writes, "
                "set mirror.range to the same, and this to true."
            )
            return section
        section.put("enabled", True, 2)
        section.put("range", list(writing.range), 2)
        if writing.assumed:
            self._check(
                f"mirror.range: {list(writing.range)} is an assumption. {writing.reason} Look at the column progress "
                "while a beam runs: [30, 90] agrees with revisions from October 2025 to April 2026, [40, 90] with the "
                "newest, [0, 100] with one that writes nothing for batches (docs/communicator.md)."
            )
        elif writing.range != (0, 100):
            self._check(
                f"mirror.range: {list(writing.range)} agrees with what this communicator writes; its screens read "
                "other ranges (docs/communicator.md). If only one of the two should write, set mirror.enabled to false."
            )
        return section

    # Logs

    def _tracking(self) -> YamlSection:
        tracking, section = self._config.tracking, YamlSection()
        patterns = {
            name: [text for text in texts if text.encode() not in DEVELOPMENT_PLAN_PATTERNS]
            for name, texts in tracking.patterns.items()
        }
        patterns = {name: texts for name, texts in patterns.items() if texts}
        for name, texts in patterns.items():
            for text in texts:
                _valid_pattern(self._config.file, f"progress_tracking.patterns.{name}", text)
        monitoring = {}
        for name, value in tracking.monitoring.items():
            low, high = _MONITORING_RANGES[name]
            monitoring[name] = min(high, max(low, value))
            if monitoring[name] != value:
                self._check(
                    f"progress_tracking.monitoring.{name}: the communicator has {value:g}, which is out of range here."
                )
        if not patterns and not monitoring:
            return section
        section.line("progress_tracking:")
        if patterns:
            section.comment("communicator: progress_tracking.patterns", 2)
            section.line("  patterns:")
            for name, texts in patterns.items():
                section.put(name, texts, 4)
        if monitoring:
            section.comment(
                "communicator: progress_tracking.monitoring. The timeout is counted from the log's last growth.", 2
            )
            section.line("  monitoring:")
            for name, value in monitoring.items():
                section.put(name, value, 4)
        return section

    def _markers(self) -> YamlSection:
        config, section = self._config, YamlSection()
        kept: dict[str, list[str]] = {}
        left_out: list[str] = []
        for key, texts in (("success_patterns", config.success), ("failure_patterns", config.failure)):
            for text in texts:
                known = _meaning(text)
                if known in (None, "phase"):
                    if known == "phase" and key == "success_patterns":
                        left_out.append(f"{one_line(text)} (printed before the dose is saved: no end)")
                        self._check(
                            f"completion_markers: {one_line(text)} does not count as the end of a run: the engine "
                            "prints it before it saves the dose, which may fail."
                        )
                        continue
                    kept.setdefault(key, []).append(_escaped(text))
                else:
                    left_out.append(one_line(text))
        if left_out:
            section.comment(f"communicator: completion_markers. Built in, so not repeated here: {', '.join(left_out)}.")
        if kept:
            section.comment(
                "communicator: completion_markers. Both search these regular expressions anywhere in a line."
            )
            section.line("completion_markers:")
            for key, patterns in kept.items():
                section.put(key, patterns, 2)
            self._check(
                "completion_markers: try them on logs of good and of failed runs with `mqi-exporter verify`: a failure "
                "pattern that also occurs in a good run makes it failed."
            )
        return section


def _as_glob(path: str) -> str:
    """Convert a path of the communicator to an output path: glob characters in it are escaped."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def _has_files(base_directory: str, path: str) -> bool:
    """Return whether there is any file where dose files of some case would be."""
    pattern = re.sub(r"\{\w+\}", "*", path.replace("{base_directory}", glob.escape(base_directory)))
    return any(os.path.isfile(found) for found in itertools.islice(glob.iglob(pattern), _FILES_LOOKED_AT))


def _is_output_path(template: str) -> bool:
    try:
        OutputPathTemplate(template, base_directory="/base_directory")
    except LogPathError:
        return False
    return True


def _meaning(text: str) -> str | None:
    """Return what the exporter recognises in a line that begins with a marker; ``None`` for nothing."""
    if text.encode() in DEVELOPMENT_PLAN_PATTERNS:
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
        compile_pattern(text)
    except ValueError as error:
        raise ConfigError([f"{file}: {key}: {error}"]) from error


def _escaped(text: str) -> str:
    """Return a piece of a line as a regular expression, with few backslashes."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)
