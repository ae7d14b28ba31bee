"""The whole configuration, and what its sections must agree on.

Sections are immutable, and refuse unknown keys and values of a similar type. Only ``base_directory`` and the
database have no default.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from exporter.beams.rules import StoreRules
from exporter.config.database import DatabaseSettings
from exporter.config.document import ConfigError, Document, Location, Origin, Trust, read_text
from exporter.config.notifications import NotificationSettings
from exporter.config.reading import Conflict, Conflicts, validate_document
from exporter.config.sections import (
    SOURCE_KINDS,
    CompletionMarkerSettings,
    DiscoverySettings,
    LocalSourceSettings,
    LogSettings,
    MirrorSettings,
    PrivacySettings,
    ProgressTrackingSettings,
    SettingsSection,
    SourceSettings,
    StateSettings,
    WebSettings,
)
from exporter.config.values import AbsolutePath, Seconds, as_tuple, is_loopback
from exporter.sources.log_paths import LogPathError, LogPathTemplate
from exporter.sources.output_paths import OutputPathTemplate

_STORE = StoreRules()
SOURCES_LIMIT = 256
"""Largest number of sources. Each is a thread and, on another host, a connection."""

_FIELDS_OF_FILE_NAMES = frozenset({"case_id", "beam_id"})


class Settings(SettingsSection):
    """One YAML file, `--config.file`, configures the exporter.

    Only `base_directory` and the database have no default. All mistakes are reported at once, each with file, line
    and key. YAML 1.2 is used: only `true` and `false` are truth values, and aliases are refused. A list of one text may
    be written as the text alone. A key without a value counts as not written.
    """

    progress_tracking: ProgressTrackingSettings = ProgressTrackingSettings()
    completion_markers: CompletionMarkerSettings = CompletionMarkerSettings()
    sources: Annotated[
        tuple[SourceSettings, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=SOURCES_LIMIT)
    ] = (LocalSourceSettings(),)
    base_directory: AbsolutePath | None = Field(
        default=None,
        description="The communicator's base directory; needed if a `log_path` uses it, as the default does.",
    )
    discovery: DiscoverySettings = DiscoverySettings()
    database: DatabaseSettings | None = None
    mirror: MirrorSettings = MirrorSettings()
    privacy: PrivacySettings = PrivacySettings()
    retention_seconds: Seconds = Field(
        default=_STORE.retention_seconds,
        description="How long a beam stays on `/metrics` after it succeeded, or longer while its case has open beams.",
    )
    failed_retention_seconds: Seconds = Field(
        default=_STORE.failed_retention_seconds, description="The same for a beam that failed or expired."
    )
    max_beams: int = Field(
        default=_STORE.max_beams,
        ge=1,
        le=1000000,
        description="Largest number of beams on `/metrics`; the others are only counted.",
    )
    web: WebSettings = WebSettings()
    state: StateSettings = StateSettings()
    notifications: Annotated[tuple[NotificationSettings, ...], BeforeValidator(as_tuple), Field(max_length=32)] = ()
    log: LogSettings = LogSettings()
    _origin: Origin = PrivateAttr(default=Origin())

    def error_at(self, *wrong: tuple[Location, str]) -> ConfigError:
        """Return the error for values that prove wrong when they are used, with file, line and key.

        Args:
            wrong: location, and what is wrong and what to do.
        """
        return self._origin.error_at(wrong)

    def templates(self, source: SourceSettings) -> tuple[LogPathTemplate, ...]:
        """Return the log paths of a source, ready to render."""
        return tuple(
            LogPathTemplate(text, base_directory=self.base_directory, log_root=source.log_root)
            for text in source.log_path
        )

    def output_templates(self, source: SourceSettings) -> tuple[OutputPathTemplate, ...]:
        """Return the output paths of a source, ready to render."""
        return tuple(
            OutputPathTemplate(text, base_directory=self.base_directory, root=source.log_root)
            for text in source.output_path
        )

    def warnings(self) -> list[str]:
        """Return warnings about values that are valid but probably not intended. Each begins with the key."""
        return list(self._doubts())

    @model_validator(mode="after")
    def _sections_agree(self) -> Settings:
        Conflicts.raise_any(
            itertools.chain(
                self._repeated_names(),
                self._unusable_templates(),
                self._missing_database(),
                self._state_over_database(),
            )
        )
        return self

    def _repeated_names(self) -> Iterator[Conflict]:
        yield from _repeated("sources", "source", [source.name for source in self.sources])
        yield from _repeated("notifications", "entry", [each.name for each in self.notifications])

    def _unusable_templates(self) -> Iterator[Conflict]:
        for position, source in enumerate(self.sources):
            for number, text in enumerate(source.log_path):
                yield from self._faults_of_template(source, text, ("sources", position, "log_path", number))
            for number, text in enumerate(source.output_path):
                yield from self._faults_of_template(source, text, ("sources", position, "output_path", number))

    def _faults_of_template(self, source: SourceSettings, text: str, at: Location) -> Iterator[Conflict]:
        # A substitute for a missing base directory, so that other mistakes are found, too.
        base = self.base_directory or "/base_directory"
        template: LogPathTemplate | OutputPathTemplate
        try:
            if at[2] == "log_path":
                template = LogPathTemplate(text, base_directory=base, log_root=source.log_root)
            else:
                template = OutputPathTemplate(text, base_directory=base, root=source.log_root)
        except LogPathError as error:
            yield Conflict(at, str(error), ((*at[:2], "log_root"),))
            return
        unknown = template.fields - _FIELDS_OF_FILE_NAMES
        if self.discovery.kind == "directory" and unknown:
            wrong = f"discovery.kind directory has no {{{min(unknown)}}}; use {{case_id}} and {{beam_id}}"
            yield Conflict(at, wrong, (("discovery", "kind"),))
        if self.progress_tracking.enabled and self.base_directory is None and _uses_base_directory(source, text):
            user = "a log_path" if at[2] == "log_path" else "an output_path"
            wrong = f"is not set, but {user} uses it; set it to the communicator's own"
            yield Conflict(("base_directory",), wrong, (at, ("progress_tracking", "enabled")))

    def _missing_database(self) -> Iterator[Conflict]:
        if self.database is None and self.discovery.kind == "database" and self.progress_tracking.enabled:
            yield Conflict(
                ("database", "path"),
                "is not set, and neither is database.url, but beams are discovered there; set one, or "
                "discovery.kind to directory",
                (("discovery", "kind"), ("progress_tracking", "enabled")),
            )

    def _state_over_database(self) -> Iterator[Conflict]:
        if self.database is not None and self.state.file is not None and self.state.file == self.database.path:
            yield Conflict(("state", "file"), "is the database; give it a file of its own", (("database", "path"),))

    def _doubts(self) -> Iterator[str]:
        host, _ = self.web.address
        if self.web.config_file is None and not is_loopback(host):
            what = "the ids of cases" if self.privacy.identifiers == "plain" else "when cases are simulated"
            yield (
                f"web.listen_address: {self.web.listen_address} is reachable from other machines without TLS or "
                f"password, and shows {what}; set web.config_file, or listen on 127.0.0.1 behind a proxy"
            )
            if self.web.enable_lifecycle:
                yield "web.enable_lifecycle: whoever reaches the server can make it reload its configuration"
        if self.discovery.kind == "directory":
            if self.mirror.enabled and "enabled" in self.mirror.model_fields_set:
                yield "mirror.enabled: nothing is mirrored with discovery.kind directory"
            if self.database is not None:
                yield "database: not used with discovery.kind directory"
        elif self.discovery.name_pattern is not None:
            yield "discovery.name_pattern: not used with discovery.kind database"
        if self.database is not None and not self.database.is_local and self.database.tls != "verify-full":
            yield (
                f"database.sslmode: {self.database.tls} lets others on the network pose as the server and read the ids "
                "of cases; use verify-full and ca_file"
            )
        if self.privacy.identifiers == "plain":
            for key in ("key_file", "resolve_for"):
                if getattr(self.privacy, key):
                    yield f"privacy.{key}: not used with privacy.identifiers plain"
        for position, source in enumerate(self.sources):
            if not source.output_path and "output_minimum_bytes" in source.model_fields_set:
                yield f"sources[{position}].output_minimum_bytes: not used without output_path"
        monitoring, stall = self.progress_tracking.monitoring, self.progress_tracking.stall
        if stall.minimum_seconds <= monitoring.poll_interval_seconds:
            yield "progress_tracking.stall.minimum_seconds: not longer than poll_interval_seconds: all runs stall"
        if monitoring.timeout_seconds <= stall.minimum_seconds:
            yield "progress_tracking.monitoring.timeout_seconds: not longer than stall.minimum_seconds: none stalls"


def load(path: Path, trust: Trust = "any_owner") -> Settings:
    """Read the configuration file.

    Args:
        path: the file.
        trust: who may be able to change it; see :func:`~exporter.config.document.read_text`.

    Raises:
        ConfigError: with all mistakes at once, sorted by line.
    """
    return settings_from(read_text(path, trust), str(path))


def settings_from(text: str, name: str) -> Settings:
    """Parse settings from YAML text; ``name`` is the name of the file in messages.

    Raises:
        ConfigError: with all mistakes at once, sorted by line.
    """
    document = Document(text, name)
    settings = validate_document(Settings, document, union_tags=SOURCE_KINDS)
    settings._origin = document.origin
    return settings


def _uses_base_directory(source: SourceSettings, text: str) -> bool:
    """Return whether a valid template needs a base directory."""
    try:
        LogPathTemplate(text, log_root=source.log_root)
    except LogPathError:
        return True
    return False


def _repeated(section: str, what: str, names: list[str]) -> Iterator[Conflict]:
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if first.setdefault(name, position) != position:
            wrong = f"{name!r} is the name of an earlier {what} too; give each its own"
            yield Conflict((section, position, "name"), wrong, ((section, first[name], "name"),))
