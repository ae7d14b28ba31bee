"""MQI case: one case with all its beams, each in detail."""

from __future__ import annotations

from dashboards.model import dashboard, failures_and_stalls, rows, variable
from dashboards.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PROGRESS_CELL,
    RED,
    STATE_CELL,
    Column,
    Json,
    Query,
    beams_in,
    lines,
    stat,
    table,
    timeline,
)
from dashboards.queries import (
    ACTIVE,
    BEAM_OF_CASE,
    CASE_CHOSEN,
    EXPORTER,
    KEYS,
    SOURCE,
    reason,
    state_code,
)
from dashboards.queries import only_in as of_beams_only_in
from dashboards.queries import per_beam as of_each_beam

_LEGEND = "{{beam_id}}"


def per_beam(metric: str) -> str:
    """Return one value for each beam of the case."""
    return of_each_beam(metric, BEAM_OF_CASE)


def only_in(states: str, expression: str) -> str:
    """Return ``expression``, which has one value for each beam, for the case's beams in these states only."""
    return of_beams_only_in(states, expression, BEAM_OF_CASE)


_NOW = [
    (
        stat(
            "How far is the case?",
            "Mean estimated progress of all beams of the case. One that succeeded counts 1, one that failed what it "
            "reached.",
            Query(f"max(mqi_case_progress_ratio{{{EXPORTER}, {CASE_CHOSEN}}})"),
            unit="percentunit",
            decimals=0,
            thresholds=((None, BLUE), (1, GREEN)),
        ),
        5,
    ),
    (
        stat(
            "When is its last running beam done?",
            "The latest expected end of the case's beams that run; none while it is not known.",
            Query(
                f"1000 * (time() + max({only_in('starting|running', per_beam('mqi_beam_remaining_seconds'))}))",
            ),
            unit="dateTimeAsIsoNoDateIfToday",
            none="Not known",
        ),
        7,
    ),
    (
        beams_in(
            "succeeded",
            "Beams that succeeded",
            "Beams of the case whose dose has been written.",
            GREEN,
            GREY,
            BEAM_OF_CASE,
        ),
        4,
    ),
    (
        beams_in(
            "stalled|expired",
            "Beams that stand still",
            "Beams of the case without progress for longer than their threshold.",
            ORANGE,
            selector=BEAM_OF_CASE,
        ),
        4,
    ),
    (
        beams_in("failed", "Beams that failed", "Beams of the case whose last run failed.", RED, selector=BEAM_OF_CASE),
        4,
    ),
]

_BEAMS = table(
    "How is each beam of this case?",
    "Every beam that is known now, in whatever state. The bar is the estimate; the batch is the one that has started. "
    "A reason is there for failures only.",
    [
        Column("Beam", "beam_id", 200),
        Column("State", "state", 100, properties=STATE_CELL),
        Column("Reason", "reason", 130),
        Column("Done", Query(per_beam("mqi_beam_progress_estimated_ratio")), 0, "percentunit", 0, PROGRESS_CELL),
        Column("Batch", Query(per_beam("mqi_beam_batch_current")), 70, "none"),
        Column("of", Query(per_beam("mqi_beam_batches_total")), 70, "none"),
        Column("Batch takes", Query(per_beam("mqi_beam_batch_duration_seconds")), 110, "dtdurations"),
        Column(
            "Time left",
            Query(only_in("starting|running", per_beam("mqi_beam_remaining_seconds"))),
            110,
            "dtdurations",
        ),
        Column("Particles", Query(per_beam("mqi_beam_particles")), 100, "short"),
        Column("Run", Query(per_beam("mqi_beam_run")), 60, "none"),
        Column("Source", "source", 110),
        Column("Is", Query(f"max by ({KEYS}, state) (mqi_beam_state{{{BEAM_OF_CASE}}}) == 1"), 0, hidden=True),
        Column("Why", Query(reason(BEAM_OF_CASE)), 0, hidden=True),
    ],
    sort_by="Beam",
)

_TIMELINE = timeline(
    "What was each beam doing?",
    "The state of each beam over time.",
    Query(state_code(BEAM_OF_CASE), _LEGEND),
)

_PROGRESS = lines(
    "How did its beams get this far?",
    "The estimate as a line; grey and dashed, the plan's value, which counts started batches and is up to one batch "
    "ahead.",
    Query(f"max by ({KEYS}) (mqi_beam_progress_estimated_ratio{{{BEAM_OF_CASE}}})", _LEGEND),
    Query(f"max by ({KEYS}) (mqi_beam_progress_ratio{{{BEAM_OF_CASE}}})", f"{_LEGEND}, started"),
    unit="percentunit",
    maximum=1,
    dashed="/, started$/",
    dashed_in_legend=False,
    decimals=0,
)

_SILENCE = lines(
    "Is a beam about to stall?",
    "Silence since the last batch or phase line, as a share of what the beam may take: at 100 % it is a stall. Only "
    "beams that have not ended.",
    Query(
        f"max by ({KEYS}) ((time() - mqi_beam_last_progress_timestamp_seconds{{{BEAM_OF_CASE}}})"
        f" / mqi_beam_stall_threshold_seconds{{{BEAM_OF_CASE}}})"
        f' and on ({KEYS}) max by ({KEYS}) (mqi_beam_state{{{BEAM_OF_CASE}, state=~"{ACTIVE}"}}) == 1',
        _LEGEND,
    ),
    unit="percentunit",
    thresholds=((0.7, ORANGE), (1, RED)),
    none="No beam is running",
)

_BATCH = lines(
    "Does a batch take longer than before?",
    "Mean duration of the finished batches of the current run, by beam.",
    Query(f"max by ({KEYS}) (mqi_beam_batch_duration_seconds{{{BEAM_OF_CASE}}})", _LEGEND),
    unit="s",
    none="No batch has finished",
)

_SLOWNESS = lines(
    "Is a beam slower than usual on its source?",
    "Time per particle, as a multiple of the source's median of the last week; 1 is usual. From the recorded series "
    "mqi_beam:slowness_ratio of alerts/mqi-rules.yml.",
    Query(f"max by ({KEYS}) (mqi_beam:slowness_ratio{{{BEAM_OF_CASE}}})", _LEGEND),
    unit="none",
    decimals=1,
    thresholds=((3, ORANGE),),
    none="No run has finished two batches",
)

_LOG = lines(
    "Does the log still grow?",
    "Size of each beam's log.",
    Query(f"max by ({KEYS}) (mqi_beam_log_size_bytes{{{BEAM_OF_CASE}}})", _LEGEND),
    unit="bytes",
    none="No beam of this case has a log",
)


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "mqi-case",
        "MQI case",
        "One case with all its beams: how far, how fast, and whether one is about to stall.",
        variables=[
            variable("job", "Job", "label_values(mqi_exporter_build_info, job)", hidden=True),
            variable(
                "instance", "Instance", 'label_values(mqi_exporter_build_info{job=~"$job"}, instance)', hidden=True
            ),
            variable("source", "Source", f"label_values(mqi_beams{{{EXPORTER}}}, source)", hidden=True),
            variable("case", "Case", f"label_values(mqi_beam_state{{{SOURCE}}}, case_id)", multi=False),
            variable("beam", "Beam", f"label_values(mqi_beam_state{{{SOURCE}, {CASE_CHOSEN}}}, beam_id)"),
        ],
        annotations=failures_and_stalls(BEAM_OF_CASE),
        panels=rows(
            (None, 5, _NOW),
            (None, 8, [(_BEAMS, 24)]),
            (None, 8, [(_TIMELINE, 12), (_PROGRESS, 12)]),
            (None, 8, [(_SILENCE, 12), (_BATCH, 12)]),
            (None, 8, [(_SLOWNESS, 12), (_LOG, 12)]),
        ),
    )
