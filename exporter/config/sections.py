"""The sections of the configuration: type, default and description of each key.

``docs/configuration.md`` is generated from them.
"""

from __future__ import annotations

import dataclasses
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

from exporter.beams import statuses
from exporter.beams.rules import StallRules
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

_STALL = StallRules()
SOURCE_KINDS = ("local", "ssh")
DEFAULT_LOG_PATH = "{base_directory}/tps_env/logs/{case_id}_{beam_id}.log"


class SettingsSection(BaseModel):
    """Base of all sections: immutable and strict. A key without a value counts as not written."""

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
    """Patterns of progress lines, for engines whose wording is not built in.

    Patterns are searched anywhere in the first 4 KiB of each line, as bytes (`\\d` is an ASCII digit, text is UTF-8).
    They are added to the built-in patterns; one that equals a built-in pattern is added, too.
    """

    total_batches: TotalPatterns = Field(
        default=(), description="Line with the total number of batches; one group, the number."
    )
    current_batch: CounterPatterns = Field(
        default=(),
        description="Line that starts a batch; one group, its number from 1 on. A second group is the total number.",
    )


class MonitoringSettings(SettingsSection):
    """Polling of running beams."""

    poll_interval_seconds: float = Field(default=0.5, ge=0.01, le=3600, description="How often each log is polled.")
    update_throttle_percent: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="Write progress to the database after it changed by this much, and at the end of a run.",
    )
    timeout_seconds: Seconds = Field(
        default=_STALL.timeout_seconds,
        description="A run is `expired` when its log has not grown for this long, until it grows again.",
    )


class StallSettings(SettingsSection):
    """A run without progress is stalled after the longer of `minimum_seconds` and `factor` times its longest batch."""

    factor: float = Field(
        default=_STALL.factor, ge=1, le=1000, description="Multiple of the longest finished batch of the run."
    )
    minimum_seconds: Seconds = Field(default=_STALL.minimum_seconds, description="A run is never stalled earlier.")
    first_batch_seconds: Seconds = Field(
        default=_STALL.first_batch_seconds,
        description="Used instead while no batch has finished; the minimum while the dose is saved.",
    )
    buffered_seconds: Seconds = Field(
        default=_STALL.buffered_seconds,
        description="Used instead when the engine's log arrives in blocks (output buffering).",
    )


class ProgressTrackingSettings(SettingsSection):
    """Reading the logs of running beams."""

    enabled: bool = Field(
        default=True,
        description="`false`: read no logs, write no progress; serve only the exporter's own metrics.",
    )
    patterns: PatternSettings = PatternSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    stall: StallSettings = StallSettings()


class CompletionMarkerSettings(SettingsSection):
    """Patterns of lines that end a run. They are added to the built-in patterns of the known engines."""

    success_patterns: LinePatterns = Field(
        default=(),
        validation_alias=AliasChoices("success_patterns", "success_pattern"),
        description="Line of a run that succeeded. The key may also be `success_pattern`.",
    )
    failure_patterns: LinePatterns = Field(
        default=(), description="Line of a run that failed; one match is enough, whatever follows it."
    )


class _CommonSourceSettings(SettingsSection):
    """Places where logs are read. The newest log that matches any template of any source is a beam's log."""

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
        description="Folder that logs must be in; needed if a template begins with a field of the beam.",
    )
    output_path: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Where a beam's dose file is: the fields of `log_path`, and globs (`*`, `?`, `[...]`) after the "
        "folder before the first field of the beam. A run succeeds only if a file that it wrote is there; otherwise it "
        "fails (`output_missing`). Without this key dose files are not checked.",
    )
    output_minimum_bytes: int = Field(default=1, ge=1, description="A smaller dose file is ignored.")
    follow_links: Literal["inside", "anywhere"] = Field(
        default="inside",
        description="Whether symbolic links in a path may lead out of its folder. The folder is `log_root`, or the "
        "part of `log_path` or `output_path` before the first field of the beam. `inside` refuses such links.",
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == UNKNOWN_SOURCE:
            raise ValueError(f"{name!r} is reserved for beams whose log has not been found; choose another name")
        return name


class LocalSourceSettings(_CommonSourceSettings):
    """Places where logs are read. The newest log that matches any template of any source is a beam's log."""

    kind: Literal["local"] = Field(default="local", description="`local`: the file system of this machine.")


class SshSourceSettings(_CommonSourceSettings):
    """Logs on one SSH host, over SFTP."""

    kind: Literal["ssh"] = Field(description="`ssh`: one SSH host, over SFTP (docs/remote-logs.md).")
    host: str = Field(min_length=1, description="Name or address of the host, or an alias of `ssh_config_file`.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Default: that of the alias, or 22.")
    user: str | None = Field(
        default=None, min_length=1, description="Default: that of the alias, or the exporter's own user."
    )
    key_file: NamedFile | None = Field(default=None, description="Private key. Default: that of the alias.")
    passphrase_file: NamedFile | None = Field(
        default=None, description="File with the passphrase of an encrypted key; only its owner may read it."
    )
    password_file: NamedFile | None = Field(
        default=None, description="File with a password; only its owner may read it. Without it no password is used."
    )
    jump_password_file: NamedFile | None = Field(
        default=None,
        description="File with a password for the hosts of `ProxyJump`. They never get the one of `password_file`.",
    )
    use_agent: bool = Field(default=False, description="Also try the keys of a running SSH agent.")
    known_hosts_file: NamedFile | None = Field(
        default=None, description="Trusted host keys. Default: `~/.ssh/known_hosts` and those of the system."
    )
    ssh_config_file: NamedFile | None = Field(
        default=None, description="OpenSSH client configuration, for aliases and `ProxyJump`. Default: none."
    )
    connect_timeout_seconds: float = Field(
        default=10, gt=0, le=60, description="Longest wait for the connection, for its banner, and for the login."
    )
    operation_timeout_seconds: float = Field(
        default=10, gt=0, le=25, description="Longest wait for an answer; then the connection counts as dead."
    )
    keepalive_seconds: int = Field(default=15, ge=1, le=3600, description="Interval of keepalive messages.")
    allow_algorithms: Annotated[tuple[WeakAlgorithm, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Weak ciphers and MACs that an old host may use: `3des-cbc`, `aes128-cbc`, `aes192-cbc`, "
        "`aes256-cbc`, `hmac-sha1`, `hmac-sha1-96`, `hmac-md5`, `hmac-md5-96`.",
    )

    @field_validator("host")
    @classmethod
    def _without_login(cls, host: str) -> str:
        if "@" in host:  # do not quote it: it may contain USER:PASSWORD
            raise ValueError("is more than a host's name (it holds an @); write the user into `user`")
        return host

    @property
    def ssh_host(self) -> SshHost:
        """Host, login and limits for the connection."""
        return SshHost(**{each.name: getattr(self, each.name) for each in dataclasses.fields(SshHost)})


def _kind_of(value: object) -> str:
    """Return the kind of a source, or the default kind."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else "local"


def _of_known_kind(value: object) -> object:
    """Refuse an unknown kind before its keys are checked: they would all be reported as unknown."""
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
    """Finding beams."""

    kind: Literal["database", "directory"] = Field(
        default="database",
        description="Find beams in the `beams` table, or in the names of log files (without a database).",
    )
    name_pattern: str | None = Field(
        default=None,
        description="With `directory`: regular expression for a whole file name with groups `case_id` and `beam_id`; "
        "by default `<case>_<case>_<rest>.log`, `sim_<case>_beam_<n>.log` and `<case>_<beam>.log` are known.",
    )
    interval_seconds: float = Field(default=2, ge=0.01, le=3600, description="Interval of discovery.")
    terminal_statuses: Annotated[Statuses, Field(min_length=1)] = Field(
        default=statuses.TERMINAL, description="Statuses of a row whose beam is over."
    )
    completed_statuses: Statuses = Field(
        default=statuses.COMPLETED, description="The `terminal_statuses` that mean success."
    )
    post_run_statuses: Statuses = Field(
        default=statuses.POST_RUN,
        description="Statuses after the simulation and before a terminal one.",
    )
    simulating_statuses: Statuses = Field(
        default=statuses.SIMULATING, description="Statuses of a row whose simulation runs."
    )
    reset_statuses: Statuses = Field(default=statuses.RESET, description="Statuses at the beginning of a retry.")

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


class MirrorSettings(SettingsSection):
    """Writing progress into the column `progress` of the `beams` table, which the communicator's screens show."""

    enabled: bool = Field(default=True, description="`false`: never write to the database.")
    value: Literal["batch", "estimated"] = Field(
        default="batch",
        description="`batch`: started batches divided by all batches. `estimated`: estimated progress.",
    )
    range: Annotated[tuple[float, float], BeforeValidator(as_tuple)] = Field(
        default=(0.0, 100.0), description="Numbers to write for 0 % and 100 %, within 0..100."
    )
    minimum_interval_seconds: float = Field(
        default=2, ge=0.1, le=3600, description="Minimum time between two transactions."
    )

    @field_validator("range")
    @classmethod
    def _ascending(cls, pair: tuple[float, float]) -> tuple[float, float]:
        low, high = pair
        if not 0 <= low < high <= 100:
            raise ValueError(f"must be two ascending numbers within 0 and 100, not [{low:g}, {high:g}]")
        return pair


class PrivacySettings(SettingsSection):
    """How ids of cases and beams are shown. They may be ids of patients."""

    identifiers: Literal["plain", "pseudonym"] = Field(
        default="plain",
        description="`plain`: unchanged. `pseudonym`: as keyed pseudonyms everywhere but in the database; paths and "
        "lines of logs are redacted (docs/user-guide.md, Pseudonyms).",
    )
    key_file: NamedFile | None = Field(
        default=None,
        description="Key of the pseudonyms, at least 32 bytes that only the exporter's user (and a group) may read: "
        "`(umask 077; openssl rand -base64 48 > FILE)`. Needed for `pseudonym`.",
    )
    resolve_for: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Users (`basic_auth_users` of the web configuration) who may see real ids on the page. Each use is "
        "logged and counted. Default: nobody.",
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
        description="File with TLS and passwords, in the format of all Prometheus exporters (docs/user-guide.md). It "
        "is read again when it changes.",
    )
    enable_lifecycle: bool = Field(default=False, description="Allow `POST /-/reload`.")
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Host names, without ports, that requests may use; others get 421. Addresses and `localhost` are "
        "always allowed. Default: any name; then DNS rebinding can read what needs no password (docs/security.md).",
    )
    grafana_url: HttpUrl | None = Field(
        default=None, description="Target of the page's link to Grafana. Default: no link."
    )
    runbook_url: HttpUrl | None = Field(
        default=None,
        description="Address of the runbooks; the page links failures and stalls to `URL/NAME.md`. Default: "
        "`/runbooks` of this server.",
    )
    time_format: Literal["auto", "24h", "12h"] = Field(
        default="auto",
        description="The page's clock; `auto`: as usual in the language of the browser (24 hours on the plain table).",
    )

    @property
    def address(self) -> tuple[str, int]:
        """Host (IPv6 without brackets; ``0.0.0.0`` by default) and port to listen on."""
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
    """State that survives a restart (docs/user-guide.md, Restarts)."""

    file: AbsoluteFile | None = Field(
        default=None,
        description="SQLite database of the exporter's own, in which offsets, runs, batch durations and counters "
        "survive a restart, and the history of runs is kept; it holds the ids of cases and beams (encrypted, with "
        "pseudonyms), only its owner can read it, and its folder must exist. Nothing is kept where not set; "
        "`/var/lib/mqi-exporter/state.db` is a good place. The JSON file of earlier versions is imported once.",
    )
    interval_seconds: float = Field(
        default=10,
        ge=0.1,
        le=3600,
        description="Changes are written within half a second. This is how often the time of the last poll is written "
        "when nothing else changes, and how soon a failed write is tried again.",
    )
    keep_history_days: float = Field(
        default=400, gt=0, le=36500, description="How long a run that ended stays in the history (`mqi-exporter runs`)."
    )


class LogSettings(SettingsSection):
    """The exporter's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest severity that is written."
    )
    format: Literal["logfmt", "json"] = Field(default="logfmt", description="Form of each line: `key=value` or JSON.")
