"""Why a beam is in its state: the answer of ``/api/v1/beams/CASE/BEAM/explain``, for programs and in words.

The words are made here, once: ``mqi-exporter explain`` and the page show them as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from exporter.beams.attribution import LogAttribution, RowKnowledge
from exporter.beams.decisions import RULE_WORDS, Rule
from exporter.beams.explanation import Explanation
from exporter.beams.labels import STATE_LABELS, STATE_MEANINGS, dose_text, output_text, reason_text
from exporter.beams.snapshot import BeamState, OutputState, SourceView
from exporter.metrics.metric_types import encodable
from exporter.polling.path_check import PathCheck
from exporter.web.api_schema import (
    BOOLEAN,
    COUNT,
    NUMBER_OR_NULL,
    STATE,
    TEXT,
    TEXT_OR_NULL,
    TEXTS,
    ApiField,
    Fields,
    Json,
    RenderContext,
    attribute,
    number,
    object_schema,
    one_of,
    one_of_or_null,
    render,
    strict_object,
)
from exporter.web.waiting import explain_waiting

_ATTRIBUTION_WORDS = {
    LogAttribution.NONE: "There is no log.",
    LogAttribution.UNREAD: "The exporter is still reading it.",
    LogAttribution.CURRENT: "It belongs to the current run.",
    LogAttribution.PREVIOUS: "It belongs to the previous run, so nothing of it is shown.",
    LogAttribution.PREVIOUS_BY_DATE: "By its date it belongs to the previous run, so nothing of it is shown.",
    LogAttribution.PREVIOUS_REREAD: "It belonged to the previous run; it is read again from its beginning.",
    LogAttribution.UNDECIDED: "It may belong to the current run or to a new one.",
}
_FOUND_WORDS = {
    "log": "a log is there, but another is followed",
    "missing": "nothing is there",
    "not_polled": "not polled yet",
    "permission": "a log is there, but the exporter may not read it",
    "not_a_file": "there is something else than a file",
    "link": "a link leads out of the log folder, so it is not followed",
    "path": "the path cannot be used",
    "io": "the file system reports an error",
}


def _path_text(check: PathCheck) -> str:
    if check.followed:
        return "this log is followed"
    if check.found == "no_path":
        return f"no path can be made: the row has no {' and no '.join(check.missing_fields)}"
    return _FOUND_WORDS.get(check.found, check.found)


PATH: Fields[PathCheck] = (
    ApiField("source", TEXT, "The source.", lambda check, _: encodable(check.source)),
    ApiField(
        "path", TEXT, "Where the log may be; empty if no path can be made.", lambda check, to: to.path(check.path)
    ),
    attribute("found", one_of((*_FOUND_WORDS, "no_path")), "What the last poll found there."),
    attribute("followed", BOOLEAN, "Whether this log is the one that is read."),
    ApiField("text", TEXT, "The same in words.", lambda check, _: _path_text(check)),
)

_RULE = one_of(rule.value for rule in Rule)
EXPLANATION: Fields[Explanation] = (
    ApiField("case_id", TEXT, "The case.", lambda each, to: to.case(each.view.key.case_id)),
    ApiField("beam_id", TEXT, "The beam.", lambda each, to: to.beam(each.view.key.beam_id)),
    ApiField("source", TEXT, "Where its log is; `unknown` without a log.", lambda each, _: encodable(each.view.source)),
    attribute("run", COUNT, "Which run of this beam it is.", "view.run_number"),
    ApiField("state", STATE, "State of the beam.", lambda each, _: each.view.state.value),
    number("state_since", NUMBER_OR_NULL, "When the state began.", "view.state_since"),
    ApiField("state_rule", _RULE, "The rule by which the state was found.", lambda each, _: each.rule.value),
    number("valid_until", NUMBER_OR_NULL, "Without news, the state is judged again then; null if it stays."),
    ApiField("status", TEXT_OR_NULL, "Status of the row.", lambda each, to: to.status(each.view.row.status)),
    ApiField(
        "hpc_job_id", TEXT_OR_NULL, "Id of the scheduler's job.", lambda each, to: to.text(each.view.row.hpc_job_id)
    ),
    attribute("row_progress", NUMBER_OR_NULL, "Progress in the row, in percent.", "view.row.progress"),
    number("row_updated_at", NUMBER_OR_NULL, "Time stamp of the row.", "view.row.updated_at"),
    number("row_read_at", NUMBER_OR_NULL, "When the row was read."),
    ApiField(
        "row_knowledge",
        one_of(each.value for each in RowKnowledge),
        "Whether the row can know the current run.",
        lambda each, _: each.row_knowledge.value,
    ),
    ApiField(
        "row_rule",
        one_of_or_null(rule.value for rule in Rule),
        "The last decision about a change of the row; null if it never changed.",
        lambda each, _: None if each.row_rule is None else each.row_rule.value,
    ),
    ApiField("log_path", TEXT_OR_NULL, "The log that is followed.", lambda each, to: to.path(each.view.log_path)),
    ApiField(
        "log",
        one_of(each.value for each in LogAttribution),
        "Which run the log belongs to.",
        lambda each, _: each.log.value,
    ),
    ApiField("log_rule", _RULE, "The rule by which the log was attributed.", lambda each, _: each.log_rule.value),
    attribute("log_read_bytes", COUNT, "How much of the log has been read."),
    number("log_last_growth_at", NUMBER_OR_NULL, "When the log last grew in the current run."),
    ApiField(
        "output",
        one_of(each.value for each in OutputState),
        "What is known of the dose file.",
        lambda each, _: each.view.output.value,
    ),
)


def explanation_schema(at: Json) -> Json:
    """Make the JSON schema of the answer.

    Args:
        at: schema of its time.
    """
    section = strict_object({"title": TEXT, "lines": TEXTS}, "One part of the explanation, in words.")
    return strict_object(
        {
            "at": at,
            "explanation": object_schema(EXPLANATION, "The evidence, and the rules that were applied."),
            "paths": {"type": "array", "items": object_schema(PATH, "A place where a source looks for the log.")},
            "sections": {"type": "array", "items": section},
        },
        "Why a beam is in its state.",
    )


def render_explanation(explanation: Explanation, checks: Sequence[PathCheck], context: RenderContext) -> Json:
    """Make the answer.

    Args:
        explanation: the evidence.
        checks: what was found at each path of the log.
        context: how ids are shown, and the sources.
    """
    words = _Words(explanation, checks, context)
    sections = {
        "State": words.state(),
        "Row": words.row(),
        "Where the log may be": words.paths(),
        "Log": words.log(),
        "Dose file": words.output(),
    }
    return {
        "explanation": render(EXPLANATION, explanation, context),
        "paths": [render(PATH, check, context) for check in checks],
        "sections": [{"title": title, "lines": list(lines)} for title, lines in sections.items()],
    }


class _Words:
    """The explanation in sentences."""

    def __init__(self, explanation: Explanation, checks: Sequence[PathCheck], context: RenderContext) -> None:
        self._explanation = explanation
        self._checks = checks
        self._context = context

    def state(self) -> Iterable[str]:
        explanation, view = self._explanation, self._explanation.view
        yield f"{STATE_LABELS[view.state]} since {self._time(view.state_since)}: {STATE_MEANINGS[view.state]}."
        yield _rule(explanation.rule)
        waiting = explain_waiting(view, self._context.sources, self._context.identifiers)
        if waiting is not None:
            yield f"Why it waits: {waiting.text}."
        if view.state is BeamState.FAILED:
            reason = reason_text(view.reason, self._context.status(view.row.status))
            yield f"Failure: {reason} (reason {view.reason})."
            if text := self._context.text(view.failure_text):
                yield f"The log says: {text}"
            if dose := dose_text(view.reason, written_before_failure=view.dose_written_before_failure):
                yield f"{dose[0].upper()}{dose[1:]}."
        if view.status_mismatch:
            yield "Log and row disagree about the end."
        if explanation.resumed:
            yield "This is the state before the exporter was restarted; the log has not been read since."
        if explanation.valid_until is not None:
            yield f"Without news, the state is judged again at {self._time(explanation.valid_until)}."

    def row(self) -> Iterable[str]:
        explanation, row = self._explanation, self._explanation.view.row
        if row.status is None:
            yield "There is no row with a status: the beam was found by the name of its log, or its row is empty."
            return
        progress = "no progress" if row.progress is None else f"progress {row.progress:g} %"
        updated = "" if row.updated_at is None else f", last changed {self._time(row.updated_at)}"
        yield f"Status {self._context.status(row.status)}, {progress}{updated}."
        if job := self._context.text(row.hpc_job_id):
            yield f"Job of the scheduler: {job}."
        before = " by the exporter before its restart" if explanation.row_from_restart else ""
        yield f"Read{before} {self._ago(explanation.row_read_at)}."
        if explanation.row_knowledge is RowKnowledge.OLDER_THAN_RUN:
            yield "It was read before the current run began, so it says nothing about this run."
        if explanation.row_rule is not None:
            yield _rule(explanation.row_rule)

    def paths(self) -> Iterable[str]:
        for check in self._checks:
            where = f" {self._context.path(check.path)}" if check.path else ""
            yield f"{encodable(check.source)}{where}: {_path_text(check)}."
        if not self._checks:
            yield "No source looks for a log of this beam."
        for source in self._context.sources:
            yield from self._source(source)

    def _source(self, source: SourceView) -> Iterable[str]:
        name = encodable(source.name)
        if source.up is False:
            yield f"{name} does not answer: {self._context.problem(source.problem) or 'unknown reason'}."
        elif source.up is None:
            yield f"{name} has not been polled yet."
        for folder in source.folders_missing or ():
            yield f"{name}: the folder {self._context.path(folder)} does not exist."
        if source.clock_offset_seconds is not None and abs(source.clock_offset_seconds) > 2.0:
            direction = "ahead of" if source.clock_offset_seconds > 0 else "behind"
            seconds = abs(source.clock_offset_seconds)
            yield f"{name}: its clock is {seconds:.0f} s {direction} ours; dates are corrected."

    def log(self) -> Iterable[str]:
        explanation, view = self._explanation, self._explanation.view
        if explanation.log is not LogAttribution.NONE:
            more = ", and there is more to read" if explanation.more_to_read else ""
            yield (
                f"{self._context.path(view.log_path)} on {encodable(view.source)}: "
                f"{explanation.log_read_bytes} bytes read{more}."
            )
            yield _ATTRIBUTION_WORDS[explanation.log]
        yield _rule(explanation.log_rule)
        if explanation.log_last_growth_at is not None:
            yield f"It last grew {self._ago(explanation.log_last_growth_at)}."
        if view.last_progress_at is not None and view.state not in (BeamState.SUCCEEDED, BeamState.FAILED):
            yield (
                f"Last progress {self._ago(view.last_progress_at)}; "
                f"stalled after {view.stall_threshold_seconds:.0f} s without progress."
            )
        if view.log_unmatched:
            yield "No line of it is known to the exporter."

    def output(self) -> Iterable[str]:
        view = self._explanation.view
        text = output_text(view.output, view.output_problem)
        if view.output is OutputState.NOT_CONFIGURED:
            yield "Not looked for: output_path is not set for this source."
        elif text is None:
            yield "It is looked for when the run has ended successfully."
        else:
            yield f"{text[0].upper()}{text[1:]}."
        if view.output_file is not None:
            yield f"{self._context.path(view.output_file.path)}, {view.output_file.size_bytes} bytes."

    def _ago(self, at: float) -> str:
        seconds = max(0.0, self._context.at - at)
        return f"{seconds:.0f} s ago ({self._time(at)})" if seconds < 86400 else f"at {self._time(at)}"

    def _time(self, at: float) -> str:
        try:
            return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
        except (ValueError, OverflowError, OSError):  # a row may hold any time
            return "a time that cannot be shown"


def _rule(rule: Rule) -> str:
    return f"{RULE_WORDS[rule]} [{rule.value}]"
