"""The section ``notifications``: which messages go where."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, field_validator

from exporter.config.sections import SettingsSection
from exporter.config.values import NamedFilePath, as_tuple, compile_pattern

NotificationKindName: TypeAlias = Literal["case_done", "case_failed", "beam_failed", "beam_stalled", "source_down"]


class NotificationSettings(SettingsSection):
    """Messages to people, sent through Apprise: mail, Teams, Slack, webhooks and others (docs/notifications.md)."""

    name: str = Field(min_length=1, max_length=64, description="Name in log lines and metrics; each name once.")
    url_file: NamedFilePath = Field(
        description="File with the Apprise URLs to send to, one per line. They hold passwords: only the exporter's "
        "user (and a group) may read the file."
    )
    on: Annotated[tuple[NotificationKindName, ...], BeforeValidator(as_tuple), Field(min_length=1)] = Field(
        default=("case_done", "case_failed", "beam_stalled"),
        description="What is sent: `case_done`, `case_failed` (all beams ended, not all done), `beam_failed`, "
        "`beam_stalled`, `source_down`.",
    )
    cases: str = Field(
        default=".*", description="Regular expression for whole case ids: messages about other cases are not sent."
    )

    @field_validator("cases")
    @classmethod
    def _is_pattern(cls, text: str) -> str:
        compile_pattern(text)
        return text
