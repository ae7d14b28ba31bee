"""The sections of the configuration: each key, what it must be, its default and what it means.

The descriptions are the reference: ``docs/configuration.md`` is made from them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from exporter.beams.snapshot import UNKNOWN_SOURCE
from exporter.config.document import quoted
from exporter.config.listen_address import ListenError, parse_listen_address
from exporter.config.reading import Conflict, Conflicts
from exporter.config.values import (
    AbsoluteFile,
    AbsolutePath,
    CounterPatterns,
    HttpUrl,
    LinePatterns,
    NamedFile,
    NamedFilePath,
    Seconds,
    Statuses,
    TotalPatterns,
    as_tuple,
    compile_pattern,
)
from exporter.sources.ssh.host import SshHost, WeakAlgorithm

_HOST_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,254}}\Z){_HOST_LABEL}(?:\.{_HOST_LABEL})*\.?")

SOURCE_KINDS = ("local", "ssh")
DEFAULT_LOG_PATH = "{base_directory}/tps_env/logs/{case_id}_{beam_id}.log"


class SettingsSection(BaseModel):
    """What all sections share: immutable, strict, and a key without a value is a key not written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = set(cls.model_fields)
        for each in cls.model_fields.values():
            if isinstance(each.validation_alias, AliasChoices):
                known.update(str(choice) for choice in each.validation_alias.choices)
        return {key: value for key, value in data.items() if value is not None or key not in known}


class PatternSettings(SettingsSection):
    """How the log says how far it is. The wording of the known engines is built in; these are added, for others.

    Patterns are searched anywhere in the first 4 KiB of each line, as bytes (`\\d` is an ASCII digit, text is UTF-8).
    A pattern that equals a built-in one is added like any other.
    """

    total_batches: TotalPatterns = Field(
        default=(), description="Line that announces how many batches there will be; one group, the number."
    )
    current_batch: CounterPatterns = Field(
        default=(),
        description="Line that starts a batch; one group, its number from 1 on, or a second one, how many there are.",
    )


class MonitoringSettings(SettingsSection):
    """How running beams are followed."""

    poll_interval_seconds: float = Field(default=0.5, ge=0.01, le=3600, description="How often each log is looked at.")
    update_throttle_percent: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="Write progress to the database only when it has changed by this much (and at every run's end).",
    )
    timeout_seconds: Seconds = Field(
        default=3600,
        description="A run whose log has not grown for this long is `expired`, until it grows again.",
    )


class StallSettings(SettingsSection):
    """When a run without progress counts as stalled: after the larger of `minimum_seconds` and `factor` batches."""

    factor: float = Field(default=3, ge=1, le=1000, description="Times the longest finished batch of the run.")
    minimum_seconds: Seconds = Field(default=120, description="Never earlier than this.")
    first_batch_seconds: Seconds = Field(
        default=900,
        description="Used instead while no batch has finished; while the dose is saved, never earlier than this.",
    )
    buffered_seconds: Seconds = Field(
        default=7200,
        description="Used instead where the engine's log arrives in blocks.",
    )


class ProgressTrackingSettings(SettingsSection):
    """Reading the logs of running beams."""

    enabled: bool = Field(
        default=True,
        description="`false`: follow nothing, write nothing; serve only metrics of the exporter itself.",
    )
    patterns: PatternSettings = PatternSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    stall: StallSettings = StallSettings()


class CompletionMarkerSettings(SettingsSection):
    """How the log says that a run is over. The words of the known engines are built in; these are added."""

    success_patterns: LinePatterns = Field(
        default=(),
        validation_alias=AliasChoices("success_patterns", "success_pattern"),
        description="Line of a run that succeeded; may be written as `success_pattern` too.",
    )
    failure_patterns: LinePatterns = Field(
        default=(), description="Line of a run that failed; any match makes the run failed, whatever follows."
    )


class _CommonSourceSettings(SettingsSection):
    """Places where logs are read. A beam is looked for at every template of every source; the newest log counts."""

    name: str = Field(
        default="local",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Label `source` of the metrics; different for each source, letters, digits and `_.-`.",
    )
    log_path: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = Field(
        default=(DEFAULT_LOG_PATH,),
        description="Where a beam's log is. Fields: `{base_directory}`, `{case_id}`, `{beam_id}`, `{beam_path}`, "
        "`{hpc_job_id}`.",
    )
    log_root: AbsolutePath | None = Field(
        default=None,
        description="Folder that logs must be in; needed where a template begins with a beam's field.",
    )
    output_path: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Where a beam's dose file is: the fields of `log_path` and, after the folder that stands before "
        "the first field of a beam, globs (`*`, `?`, `[...]`). A run has succeeded only when a file that it wrote "
        "is there; else it failed (`output_missing`). No dose file is looked for where not set.",
    )
    output_minimum_bytes: int = Field(default=1, ge=1, description="A smaller dose file does not count.")
    follow_links: Literal["inside", "anywhere"] = Field(
        default="inside",
        description="Symbolic links in a log's path are followed `inside` `log_root`, or the folder that `log_path` "
        "names before its first field of a beam, or `anywhere`. The same holds for `output_path` and its folder.",
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == UNKNOWN_SOURCE:
            raise ValueError(f"{name!r} is reserved for beams whose log has not been found; choose another name")
        return name


class LocalSourceSettings(_CommonSourceSettings):
    """Places where logs are read. A beam is looked for at every template of every source; the newest log counts."""

    kind: Literal["local"] = Field(default="local", description="`local`: the file system of this machine.")


class SshSourceSettings(_CommonSourceSettings):
    """Logs on one SSH host, over SFTP."""

    kind: Literal["ssh"] = Field(description="`ssh`: one SSH host, over SFTP (docs/remote-logs.md).")
    host: str = Field(min_length=1, description="Name or address of the host, or an alias of `ssh_config_file`.")
    port: int | None = Field(default=None, ge=1, le=65535, description="22, or the alias's, where not set.")
    user: str | None = Field(default=None, min_length=1, description="The exporter's own, or the alias's, if not set.")
    key_file: NamedFile | None = Field(default=None, description="Private key; the alias's where not set.")
    passphrase_file: NamedFile | None = Field(
        default=None, description="File with the passphrase of an encrypted key; only its owner may read it."
    )
    password_file: NamedFile | None = Field(
        default=None, description="File with a password; only its owner may read it. Without it, none is ever used."
    )
    jump_password_file: NamedFile | None = Field(
        default=None,
        description="File with a password for the hosts of `ProxyJump`, which never get that of `password_file`.",
    )
    use_agent: bool = Field(default=False, description="Try the keys of a running SSH agent, too.")
    known_hosts_file: NamedFile | None = Field(
        default=None, description="Host keys that are trusted; `~/.ssh/known_hosts` and the system's where not set."
    )
    ssh_config_file: NamedFile | None = Field(
        default=None, description="OpenSSH client configuration, for aliases and `ProxyJump`; none where not set."
    )
    connect_timeout_seconds: float = Field(
        default=10, gt=0, le=60, description="Longest wait for the connection, for its banner and for the login, each."
    )
    operation_timeout_seconds: float = Field(
        default=10, gt=0, le=25, description="Longest wait for an answer: a dead link is noticed so soon."
    )
    keepalive_seconds: int = Field(default=15, ge=1, le=3600, description="How often an idle connection is kept open.")
    allow_algorithms: Annotated[tuple[WeakAlgorithm, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Weak ciphers and MACs that an old host may use: `3des-cbc`, `aes128-cbc`, `aes192-cbc`, "
        "`aes256-cbc`, `hmac-sha1`, `hmac-sha1-96`, `hmac-md5`, `hmac-md5-96`.",
    )

    @field_validator("host")
    @classmethod
    def _without_login(cls, host: str) -> str:
        if "@" in host:  # not shown: USER:PASSWORD may stand before it
            raise ValueError("is more than a host's name (it holds an @); write the user into `user`")
        return host

    @property
    def ssh_host(self) -> SshHost:
        """How to reach the host."""
        return SshHost(
            self.host,
            port=self.port,
            user=self.user,
            key_file=self.key_file,
            passphrase_file=self.passphrase_file,
            password_file=self.password_file,
            jump_password_file=self.jump_password_file,
            use_agent=self.use_agent,
            known_hosts_file=self.known_hosts_file,
            ssh_config_file=self.ssh_config_file,
            connect_timeout_seconds=self.connect_timeout_seconds,
            operation_timeout_seconds=self.operation_timeout_seconds,
            keepalive_seconds=self.keepalive_seconds,
            allow_algorithms=self.allow_algorithms,
        )


def _kind_of(value: object) -> str:
    """The kind that is written, or the default one."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else "local"


def _of_known_kind(value: object) -> object:
    """Speak of the kind alone: what else is written belongs to that kind and would only be called unknown."""
    if (kind := _kind_of(value)) not in SOURCE_KINDS:
        wrong = f"{kind!r} is not available in this version; kinds: {', '.join(SOURCE_KINDS)}"
        raise Conflicts([Conflict(("kind",), wrong, ((),))])
    return value


SourceSettings: TypeAlias = Annotated[
    Annotated[LocalSourceSettings, Tag("local")] | Annotated[SshSourceSettings, Tag("ssh")],
    Discriminator(_kind_of),
    BeforeValidator(_of_known_kind),
]


class DiscoverySettings(SettingsSection):
    """Which beams to follow."""

    kind: Literal["database", "directory"] = Field(
        default="database",
        description="From the `beams` table, or (without a database) from the log files' names.",
    )
    name_pattern: str | None = Field(
        default=None,
        description="With `directory`: regular expression for a whole file name with groups `case_id` and `beam_id`; "
        "by default `<case>_<case>_<rest>.log`, `sim_<case>_beam_<n>.log` and `<case>_<beam>.log` are known.",
    )
    interval_seconds: float = Field(default=2, ge=0.01, le=3600, description="How often to look for beams.")
    terminal_statuses: Annotated[Statuses, Field(min_length=1)] = Field(
        default=("completed", "failed", "cancelled"), description="Statuses of a row that is done with."
    )
    completed_statuses: Statuses = Field(
        default=("completed",), description="Those of `terminal_statuses` that mean success."
    )
    post_run_statuses: Statuses = Field(
        default=("downloading", "postprocessing"),
        description="Statuses after the simulation and before a terminal one.",
    )
    simulating_statuses: Statuses = Field(
        default=("hpc_running", "simulation_running"), description="Statuses of a row whose simulation runs."
    )
    reset_statuses: Statuses = Field(default=("pending",), description="Statuses that a retry begins with.")

    @field_validator("name_pattern")
    @classmethod
    def _names_both_ids(cls, text: str | None) -> str | None:
        if text is not None and (missing := {"case_id", "beam_id"} - compile_pattern(text).groupindex.keys()):
            groups = " and ".join(f"(?P<{name}>...)" for name in sorted(missing))
            raise ValueError(f"{text!r} has no group {groups}; add it")
        return text

    @model_validator(mode="after")
    def _statuses_agree(self) -> DiscoverySettings:
        Conflicts.raise_any(self._status_contradictions())
        return self

    def _status_contradictions(self) -> Iterator[Conflict]:
        for status in self.completed_statuses:
            if status not in self.terminal_statuses:
                yield Conflict(
                    ("completed_statuses",),
                    f"{status!r} is not one of terminal_statuses; add it there or drop it here",
                    (("terminal_statuses",),),
                )
        lists = ("terminal_statuses", "post_run_statuses", "simulating_statuses", "reset_statuses")
        for first, second in itertools.combinations(lists, 2):
            for status in getattr(self, second):
                if status in getattr(self, first):
                    wrong = f"{status!r} is one of {first} too, and cannot be both; drop it from one of them"
                    yield Conflict((second,), wrong, ((first,),))


class DatabaseSettings(SettingsSection):
    """The communicator's SQLite database: beams are discovered in it and progress is mirrored into it."""

    path: AbsoluteFile = Field(
        description="The database file, absolute; never created. Needed unless beams are found by `directory`."
    )
    migrate: bool = Field(default=True, description="Add the column `progress` to `beams` where it is missing.")
    busy_timeout_ms: int = Field(
        default=500,
        ge=0,
        le=1000,
        description="How long a statement waits for the communicator's lock, milliseconds.",
    )


class MirrorSettings(SettingsSection):
    """Writing progress into the column `progress` of the `beams` table, which the communicator's screens show."""

    enabled: bool = Field(default=True, description="`false`: never write to the database.")
    value: Literal["batch", "estimated"] = Field(
        default="batch",
        description="`batch`: started of all batches. `estimated`: the work that is really done.",
    )
    range: Annotated[tuple[float, float], BeforeValidator(as_tuple)] = Field(
        default=(0.0, 100.0), description="What 0 and 100 % are written as, within 0..100."
    )
    minimum_interval_seconds: float = Field(
        default=2, ge=0.1, le=3600, description="At most one transaction in this time."
    )

    @field_validator("range")
    @classmethod
    def _ascending(cls, pair: tuple[float, float]) -> tuple[float, float]:
        low, high = pair
        if not 0 <= low < high <= 100:
            raise ValueError(f"must be two ascending numbers within 0 and 100, not [{low:g}, {high:g}]")
        return pair


class PrivacySettings(SettingsSection):
    """How the ids of cases and beams, which may be those of patients, are shown outside the process."""

    identifiers: Literal["plain", "pseudonym"] = Field(
        default="plain",
        description="`plain`: as they are. `pseudonym`: as keyed pseudonyms everywhere but in the database; paths and "
        "lines of logs are redacted (docs/user-guide.md, Pseudonyms).",
    )
    key_file: NamedFile | None = Field(
        default=None,
        description="Key of the pseudonyms, at least 32 bytes that only the exporter's user (and a group) may read: "
        "`(umask 077; openssl rand -base64 48 > FILE)`. Needed for `pseudonym`.",
    )
    resolve_for: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Users of the web configuration (`basic_auth_users`) who may have the ids behind the pseudonyms "
        "shown on the page; each time is logged and counted. Nobody where not set.",
    )

    @model_validator(mode="after")
    def _has_a_key(self) -> PrivacySettings:
        if self.identifiers == "pseudonym" and self.key_file is None:
            wrong = (
                "is not set, and pseudonyms need a key; make one with `(umask 077; openssl rand -base64 48 > FILE)`, "
                "and name the file here"
            )
            raise Conflicts([Conflict(("key_file",), wrong, (("identifiers",),))])
        return self


class WebSettings(SettingsSection):
    """The HTTP server: metrics, page and API."""

    listen_address: str = Field(default="127.0.0.1:10813", description="`host:port`; `:port` is every interface.")
    config_file: NamedFilePath | None = Field(
        default=None,
        description="TLS and passwords, in the format that all Prometheus exporters share (docs/user-guide.md); a file "
        "of its own, read again when it changes.",
    )
    enable_lifecycle: bool = Field(default=False, description="Allow `POST /-/reload`.")
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Names, without ports, by which browsers and scrapers may ask; others get 421. Addresses and "
        "`localhost` are always answered. Any name where not set: then a page of somebody else's, whose name is made "
        "to lead here, can read what asks for no password (docs/security.md).",
    )
    grafana_url: HttpUrl | None = Field(
        default=None, description="Where the page's link to Grafana leads; no link where not set."
    )
    runbook_url: HttpUrl | None = Field(
        default=None,
        description="Where the runbooks are, if not on the page's own server (`/runbooks`): the page leads from a "
        "failure or a stall to `URL/NAME.md`.",
    )

    @property
    def address(self) -> tuple[str, int]:
        """Host (IPv6 without brackets; ``0.0.0.0`` where none is written) and port to listen on."""
        return parse_listen_address(self.listen_address)

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        Conflicts.raise_any(
            Conflict((position,), f"{quoted(name)} is no host name; write mqi.hospital.example, without a port")
            for position, name in enumerate(names)
            if not _HOST_NAME.fullmatch(name)
        )
        return tuple(name.lower().removesuffix(".") for name in names)

    @field_validator("listen_address")
    @classmethod
    def _is_address(cls, text: str) -> str:
        try:
            parse_listen_address(text)
        except ListenError as error:
            raise ValueError(str(error)) from None
        return text


class StateSettings(SettingsSection):
    """Going on after a restart (docs/user-guide.md, Restarts)."""

    file: AbsoluteFile | None = Field(
        default=None,
        description="File in which offsets, runs, batch durations and counters survive a restart; it holds the ids of "
        "cases and beams (sealed, with pseudonyms), only its owner can read it, and its folder must exist. Nothing is "
        "kept where not set; "
        "`/var/lib/mqi-exporter/state.json` is a good place.",
    )
    interval_seconds: float = Field(
        default=10, ge=0.1, le=3600, description="How often it is written; also when a run ends, and at the end."
    )


class LogSettings(SettingsSection):
    """The exporter's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severity written.")
    format: Literal["logfmt", "json"] = Field(default="logfmt", description="Form of each line: `key=value` or JSON.")
