"""The API's fields of a beam and of an ended run."""

from __future__ import annotations

from exporter.beams.forecast import Basis
from exporter.beams.labels import dose_text, output_text, reason_text, status_text
from exporter.beams.snapshot import BeamState, BeamView, EndedRun, OutputState
from exporter.logs.events import DIALECTS, FAILURE_REASONS, PHASES
from exporter.metrics.metric_types import encodable
from exporter.web.api_schema import (
    BOOLEAN,
    COUNT,
    COUNT_OR_NULL,
    NUMBER,
    NUMBER_OR_NULL,
    RATIO,
    STATE,
    TEXT,
    TEXT_OR_NULL,
    ApiField,
    Fields,
    RenderContext,
    attribute,
    number,
    one_of,
    one_of_or_null,
    rounded,
)
from exporter.web.waiting import WAITING_REASONS, explain_waiting, needs_attention


def _expected_end(beam: BeamView, context: RenderContext) -> float | None:
    end = context.ends.get(beam.key)
    return None if end is None else end.at


def _expected_end_basis(beam: BeamView, context: RenderContext) -> str | None:
    end = context.ends.get(beam.key)
    return None if end is None else end.basis.value


def _remaining_seconds(beam: BeamView, _: RenderContext) -> float | None:
    """Nothing for an unreachable beam: its last estimate gets older and is no time left."""
    return None if beam.state is BeamState.UNREACHABLE else rounded(beam.remaining_seconds)


def _histories_per_second(beam: BeamView) -> float | None:
    if beam.particles_per_batch is None or not beam.batch_duration_seconds:
        return None
    return round(beam.particles_per_batch / beam.batch_duration_seconds, 1)


def _waiting_reason(beam: BeamView, context: RenderContext) -> str | None:
    explained = explain_waiting(beam, context.sources, context.identifiers)
    return None if explained is None else explained.reason


def _waiting_text(beam: BeamView, context: RenderContext) -> str | None:
    explained = explain_waiting(beam, context.sources, context.identifiers)
    return None if explained is None else explained.text


BEAM: Fields[BeamView] = (
    ApiField("case_id", TEXT, "The case's id, or its pseudonym.", lambda beam, context: context.case(beam.key.case_id)),
    ApiField("beam_id", TEXT, "The beam's id, or its pseudonym.", lambda beam, context: context.beam(beam.key.beam_id)),
    ApiField(
        "source",
        TEXT,
        "Source of its log; `unknown` until a log is found.",
        lambda beam, _: encodable(beam.source),
    ),
    attribute("state", STATE, "Its state.", "state.value"),
    number("state_since", NUMBER, "When it entered this state."),
    attribute("reason", one_of_or_null(FAILURE_REASONS), "Why it failed; null in every other state."),
    ApiField(
        "reason_text",
        TEXT_OR_NULL,
        "`reason` in words.",
        lambda beam, context: reason_text(beam.reason, context.status(beam.row.status)),
    ),
    ApiField(
        "failure_text",
        TEXT_OR_NULL,
        "The line of the log that reports the failure; null where there is none.",
        lambda beam, context: context.text(beam.failure_text),
    ),
    ApiField(
        "dose_text",
        TEXT_OR_NULL,
        "Says that a failed run had written its dose file before; null otherwise.",
        lambda beam, _: dose_text(beam.reason, written_before_failure=beam.dose_written_before_failure),
    ),
    ApiField(
        "waiting_reason", one_of_or_null(WAITING_REASONS), "Why it waits; null in every other state.", _waiting_reason
    ),
    ApiField("waiting_text", TEXT_OR_NULL, "`waiting_reason` in words.", _waiting_text),
    ApiField(
        "needs_attention",
        BOOLEAN,
        "Whether it should be checked: it is failed, stalled, expired or unreachable, or its row has reported a "
        "running simulation for ten minutes and there is no log.",
        lambda beam, context: needs_attention(beam, context.sources, context.at),
    ),
    attribute("run", COUNT, "Number of the run; the first run seen is 1.", "run_number"),
    attribute("dialect", one_of(DIALECTS), "Dialect of its log."),
    attribute("phase", one_of_or_null(PHASES), "What the engine is doing; null until its log says so."),
    attribute("batches_total", COUNT_OR_NULL, "Batches of the run; null while unknown."),
    attribute("batch_current", COUNT, "Number of the current batch; 0 before the first."),
    attribute("batches_completed", COUNT, "Finished batches."),
    ApiField(
        "progress_ratio",
        RATIO,
        "Progress: started batches divided by all batches. It is up to one batch ahead of the simulation.",
        lambda beam, _: round(beam.progress_ratio, 4),
    ),
    ApiField(
        "estimated_ratio",
        RATIO,
        "Estimated progress; 1 only when the run has succeeded.",
        lambda beam, _: round(beam.estimated_ratio, 4),
    ),
    ApiField(
        "remaining_seconds",
        NUMBER_OR_NULL,
        "Estimated time left; null while unknown, while its source is down, and after the end.",
        _remaining_seconds,
    ),
    ApiField(
        "expected_end",
        NUMBER_OR_NULL,
        "When it is expected to finish, in whole seconds; null while unknown, stalled or expired. While its source is "
        "down: the last estimate, and null once that is past.",
        _expected_end,
    ),
    ApiField(
        "expected_end_basis",
        one_of_or_null(basis.value for basis in Basis),
        "What `expected_end` is based on: the `pace` of the run's own batches, or earlier runs (rough, in whole "
        "minutes).",
        _expected_end_basis,
    ),
    number("started_at", NUMBER_OR_NULL, "When the run started; null where the start was not seen.", "began_at"),
    number("ended_at", NUMBER_OR_NULL, "When the run ended; null until then."),
    number("last_progress_at", NUMBER_OR_NULL, "When the last line about a batch or a phase arrived."),
    number("stall_threshold_seconds", NUMBER, "The beam is stalled after this long without progress."),
    number(
        "batch_duration_seconds",
        NUMBER_OR_NULL,
        "Mean duration of this run's finished batches, without the first (warm-up) as soon as two others are known.",
    ),
    ApiField(
        "histories_per_second",
        NUMBER_OR_NULL,
        "Histories simulated per second: those of a batch divided by `batch_duration_seconds`; null where unknown.",
        lambda beam, _: _histories_per_second(beam),
    ),
    attribute("particles_per_batch", COUNT_OR_NULL, "Histories in a full batch."),
    attribute("particles", COUNT_OR_NULL, "Histories of the whole run."),
    ApiField(
        "dose_path",
        TEXT_OR_NULL,
        "Path of the dose file as the engine prints it; null until it is written. The last one of several.",
        lambda beam, context: context.path(beam.dose_path),
    ),
    attribute("dose_dimensions", TEXT_OR_NULL, "Size of the dose grid, such as `400x400x1`, where the log has it."),
    attribute("dose_max_gy", NUMBER_OR_NULL, "Maximum dose in Gy, where the log has it."),
    attribute("doses_written", COUNT, "Number of dose files written by this run."),
    number(
        "engine_initialization_seconds",
        NUMBER_OR_NULL,
        "Duration of the initialization as the engine measured it, summed over the beams of one process.",
        "engine_times.initialization_seconds",
    ),
    number(
        "engine_simulation_seconds",
        NUMBER_OR_NULL,
        "Duration of the simulation as the engine measured it, summed likewise.",
        "engine_times.simulation_seconds",
    ),
    number(
        "engine_output_seconds",
        NUMBER_OR_NULL,
        "Duration of saving the dose as the engine measured it, summed likewise.",
        "engine_times.output_seconds",
    ),
    number(
        "engine_seconds",
        NUMBER_OR_NULL,
        "Duration of the whole run as the engine measured it.",
        "engine_times.total_seconds",
    ),
    ApiField(
        "log_path", TEXT_OR_NULL, "Its log; null until one is found.", lambda beam, context: context.path(beam.log_path)
    ),
    attribute("log_size_bytes", COUNT_OR_NULL, "Size of the log."),
    number("log_modified_at", NUMBER_OR_NULL, "When the log was last written."),
    attribute(
        "output",
        one_of(state.value for state in OutputState),
        "Result of the output check (`output_path`).",
        "output.value",
    ),
    ApiField(
        "output_text",
        TEXT_OR_NULL,
        "`output` in words; null where there is nothing to say.",
        lambda beam, _: output_text(beam.output, beam.output_problem),
    ),
    ApiField(
        "output_path",
        TEXT_OR_NULL,
        "The dose file that the output check found; null until then.",
        lambda beam, context: None if beam.output_file is None else context.path(beam.output_file.path),
    ),
    ApiField(
        "output_size_bytes",
        COUNT_OR_NULL,
        "Size of that file when it was found.",
        lambda beam, _: None if beam.output_file is None else beam.output_file.size_bytes,
    ),
    attribute(
        "buffered", BOOLEAN, "Its log grows in blocks: between two blocks it does not show progress.", "log_buffered"
    ),
    attribute("log_unmatched", BOOLEAN, "Its log grows, but no line of it is recognised."),
    ApiField(
        "status",
        TEXT_OR_NULL,
        "Status in its row; null without a row.",
        lambda beam, context: context.status(beam.row.status),
    ),
    ApiField(
        "status_text",
        TEXT_OR_NULL,
        "`status` in words.",
        lambda beam, context: None if beam.row.status is None else status_text(context.status(beam.row.status) or ""),
    ),
    attribute("status_mismatch", BOOLEAN, "Log and row have disagreed about the run's end for more than a minute."),
    number("status_updated_at", NUMBER_OR_NULL, "When its row was last written.", "row.updated_at"),
    ApiField(
        "hpc_job_id",
        TEXT_OR_NULL,
        "Id of the scheduler's job.",
        lambda beam, context: context.text(beam.row.hpc_job_id),
    ),
)

ENDED_RUN: Fields[EndedRun] = (
    ApiField("case_id", TEXT, "The case's id, or its pseudonym.", lambda run, context: context.case(run.key.case_id)),
    ApiField("beam_id", TEXT, "The beam's id, or its pseudonym.", lambda run, context: context.beam(run.key.beam_id)),
    ApiField("source", TEXT, "Source of its log.", lambda run, _: encodable(run.source)),
    attribute("run", COUNT, "Number of the run.", "run_number"),
    attribute("outcome", one_of(("succeeded", "failed")), "How it ended."),
    attribute("reason", one_of_or_null(FAILURE_REASONS), "Why it failed; null if it succeeded."),
    ApiField(
        "reason_text",
        TEXT_OR_NULL,
        "`reason` in words.",
        lambda run, context: reason_text(run.reason, context.status(run.status)),
    ),
    number("started_at", NUMBER_OR_NULL, "When it started; null where the start was not seen."),
    number("ended_at", NUMBER, "When it ended."),
)
