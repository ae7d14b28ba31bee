"""Names of the rules by which the exporter decides about a beam, and what each means in words.

Every decision (which run a log and a row belong to, which state a beam is in) names its rule. The name is logged at
debug level and shown by ``mqi-exporter explain``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from exporter.beams.snapshot import BeamKey


class Rule(str, Enum):
    """One rule. :data:`RULE_WORDS` says what it means."""

    # Which log is followed
    FIRST_LOG = "first_log"
    NEWER_LOG = "newer_log"
    LOG_AT_NEW_PATH = "log_at_new_path"
    LOG_STILL_WRITTEN = "log_still_written"

    # Which run the log belongs to
    NO_LOG = "no_log"
    LOG_NOT_READ = "log_not_read"
    LOG_WRITTEN_WHILE_WATCHED = "log_written_while_watched"
    LOG_NOT_OLDER_THAN_ROW = "log_not_older_than_row"
    LOG_OLDER_THAN_ROW = "log_older_than_row"
    LOG_OF_RUN_BEFORE_RESET = "log_of_run_before_reset"
    LOG_REPLACED = "log_replaced"
    LOG_CONTINUES_AFTER_REPLACEMENT = "log_continues_after_replacement"
    LOG_RESTARTED = "log_restarted"
    LOG_GROWS_UNDER_RUNNING_ROW = "log_grows_under_running_row"
    ROW_COMPLETED_WITH_THIS_LOG = "row_completed_with_this_log"

    # Whether the row begins a new run
    ROW_READ_BEFORE_RUN = "row_read_before_run"
    ROW_OF_SAME_RUN = "row_of_same_run"
    ROW_OLDER_THAN_LOG = "row_older_than_log"
    ROW_RESET_AFTER_END = "row_reset_after_end"
    ROW_RESET = "row_reset"
    ROW_REVIVED = "row_revived"
    ROW_PROGRESS_EMPTIED = "row_progress_emptied"

    # Which state the beam is in
    NO_RUN = "no_run"
    NO_BATCH_YET = "no_batch_yet"
    PROGRESS = "progress"
    NO_PROGRESS = "no_progress"
    LOG_SILENT = "log_silent"
    LOG_SUCCEEDED = "log_succeeded"
    LOG_FAILED = "log_failed"
    ROW_SUCCEEDED = "row_succeeded"
    ROW_FAILED = "row_failed"
    SOURCE_DOWN = "source_down"
    OUTPUT_PENDING = "output_pending"
    OUTPUT_BLOCKED = "output_blocked"
    OUTPUT_MISSING = "output_missing"

    __hash__ = str.__hash__


RULE_WORDS: Mapping[Rule, str] = {
    Rule.FIRST_LOG: "It is the first log that was found for this beam.",
    Rule.NEWER_LOG: "It is clearly newer than the log that was followed before.",
    Rule.LOG_AT_NEW_PATH: "The row now names another place for the log.",
    Rule.LOG_STILL_WRITTEN: "It is being written, and the log that was followed before is silent.",
    Rule.NO_LOG: "No log has been found yet.",
    Rule.LOG_NOT_READ: "The log has not been read to its end yet.",
    Rule.LOG_WRITTEN_WHILE_WATCHED: "The log appeared or grew while the exporter watched it.",
    Rule.LOG_NOT_OLDER_THAN_ROW: "The log is not older than the last change of the row, or its run has not ended.",
    Rule.LOG_OLDER_THAN_ROW: "The run in the log ended before the row was last changed.",
    Rule.LOG_OF_RUN_BEFORE_RESET: "The row was reset, and the log has not been written since.",
    Rule.LOG_REPLACED: "The log was replaced; no line has shown yet whether a new run has begun.",
    Rule.LOG_CONTINUES_AFTER_REPLACEMENT: "The log was replaced and continues the same run (log rotation).",
    Rule.LOG_RESTARTED: "The log began again with a new run.",
    Rule.LOG_GROWS_UNDER_RUNNING_ROW: "The log grows while the row says that the engine runs; it is read again.",
    Rule.ROW_COMPLETED_WITH_THIS_LOG: "The row says completed, and no other log was written.",
    Rule.ROW_READ_BEFORE_RUN: "The row was read before the current run began.",
    Rule.ROW_OF_SAME_RUN: "The row has changed, but not in a way that begins a new run.",
    Rule.ROW_OLDER_THAN_LOG: "The row was reset, but the log was written later: the run continues.",
    Rule.ROW_RESET_AFTER_END: "The row was reset after the log had shown the end of the run.",
    Rule.ROW_RESET: "The row was reset, and the log has not been written since.",
    Rule.ROW_REVIVED: "The row had ended and is open again; the log has not been written since.",
    Rule.ROW_PROGRESS_EMPTIED: "The progress in the row was set back to 0, and the log has not been written since.",
    Rule.NO_RUN: "No log of the current run has been read.",
    Rule.NO_BATCH_YET: "The log has begun; no batch has.",
    Rule.PROGRESS: "The log shows progress.",
    Rule.NO_PROGRESS: "The log shows no progress for longer than the stall threshold.",
    Rule.LOG_SILENT: "The log has not grown for longer than `timeout_seconds`.",
    Rule.LOG_SUCCEEDED: "The log shows a successful end.",
    Rule.LOG_FAILED: "The log shows a failure.",
    Rule.ROW_SUCCEEDED: "The row says that the run succeeded; the log does not show its end.",
    Rule.ROW_FAILED: "The row says that the run is over without success; the log does not show its end.",
    Rule.SOURCE_DOWN: "The source of the log does not answer.",
    Rule.OUTPUT_PENDING: "The run has ended; the exporter is looking for its dose file.",
    Rule.OUTPUT_BLOCKED: "The run has ended; its dose file cannot be looked for.",
    Rule.OUTPUT_MISSING: "The run ended normally, but its dose file is not there.",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision about a beam.

    Args:
        rule: by which it was made.
        at: when.
        facts: the evidence, by name. ``status`` is the status of the row; all other texts are words of this program.
    """

    rule: Rule
    at: float
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BeamDecision:
    """A decision, and for which run of which beam it was made.

    Args:
        key: the beam.
        source: where its log is; ``None`` without a log.
        run_number: the current run.
        decision: the decision.
    """

    key: BeamKey
    source: str | None
    run_number: int
    decision: Decision
