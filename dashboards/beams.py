"""MQI beams: for physicists who wait for a dose, and for operators."""

from __future__ import annotations

from dashboards.model import dashboard, failures_and_stalls, rows, variable
from dashboards.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PROGRESS_CELL,
    PURPLE,
    RED,
    STATE_CELL,
    Column,
    Json,
    Query,
    bars,
    beams_in,
    case_link,
    lines,
    table,
)
from dashboards.queries import ACTIVE, ALERT, BEAM, CASES_CHOSEN, EXPORTER, KEYS, SOURCE, only_in, per_beam, reason

_PROGRESSING = "starting|running"
"""States in which a beam has an expected end; a stalled beam has none."""


def _now(metric: str, states: str = ACTIVE) -> Query:
    return Query(only_in(states, per_beam(metric)))


_NOW = [
    (
        beams_in(
            _PROGRESSING, "Beams running now", "Beams whose log grows: they load, prepare or simulate.", BLUE, GREY
        ),
        5,
    ),
    (
        beams_in(
            "stalled|expired",
            "Beams that stand still",
            "Beams without progress for longer than their threshold. Somebody has to look: they will not go on alone.",
            ORANGE,
        ),
        5,
    ),
    (
        beams_in(
            "failed", "Beams that failed", "Beams whose last run failed, for a day or until they are tried again.", RED
        ),
        5,
    ),
    (
        beams_in(
            "waiting",
            "Beams waiting to start",
            "Beams that have no log yet: they queue, or their process has not begun to write.",
            BLUE,
            GREY,
        ),
        5,
    ),
    (
        beams_in(
            "unreachable",
            "Beams out of sight",
            "Beams whose source cannot be read: they may go on, but nobody sees how.",
            PURPLE,
        ),
        4,
    ),
]

_RUNNING = table(
    "How far is each beam, and when is it done?",
    "Every beam that has a log and has not ended. The bar is the estimate: finished batches and the elapsed share of "
    "the running one. The batch is the one that has started, so it is up to one ahead. Click a beam for its details.",
    [
        Column("Case", "case_id", 150),
        Column("Beam", "beam_id", 200, properties=(case_link(),)),
        Column("State", "state", 100, properties=STATE_CELL),
        Column("Done", _now("mqi_beam_progress_estimated_ratio"), 0, "percentunit", 0, PROGRESS_CELL),
        Column("Batch", _now("mqi_beam_batch_current"), 70, "none"),
        Column("of", _now("mqi_beam_batches_total"), 70, "none"),
        Column("Time left", _now("mqi_beam_remaining_seconds", _PROGRESSING), 110, "dtdurations"),
        Column(
            "Done at",
            Query(only_in(_PROGRESSING, f"1000 * (time() + {per_beam('mqi_beam_remaining_seconds')})")),
            150,
            "dateTimeAsIsoNoDateIfToday",
        ),
        Column("Source", "source", 110),
        Column("Run", _now("mqi_beam_run"), 60, "none"),
        Column(
            "Is",
            Query(f'max by ({KEYS}, state) (mqi_beam_state{{{BEAM}, state=~"{ACTIVE}"}}) == 1'),
            0,
            hidden=True,
        ),
    ],
    sort_by="Done at",
)

_ENDED = table(
    "What ended lately, and how?",
    "Beams that succeeded within the last hour (retention_seconds) or failed within the last day "
    "(failed_retention_seconds), and all that ended of cases that are still open; newest first. A reason is there for "
    "failures only.",
    [
        Column(
            "Ended",
            Query(f"1000 * {only_in('succeeded|failed', per_beam('mqi_beam_end_timestamp_seconds'))}"),
            180,
            "dateTimeAsIsoNoDateIfToday",
        ),
        Column("Case", "case_id", 150),
        Column("Beam", "beam_id", 200, properties=(case_link(),)),
        Column("Outcome", "state", 110, properties=STATE_CELL),
        Column("Reason", "reason", 150),
        Column(
            "Took",
            Query(
                only_in(
                    "succeeded|failed",
                    # The duration of a run that had ended before its first poll is unknown; its end equals its start.
                    f"({per_beam('mqi_beam_end_timestamp_seconds')}"
                    f" - {per_beam('mqi_beam_start_timestamp_seconds')}) > 0",
                ),
            ),
            100,
            "dtdurations",
        ),
        Column(
            "Batches",
            Query(only_in("succeeded|failed", per_beam("mqi_beam_batches_completed"))),
            80,
            "none",
        ),
        Column("Source", "source", 0),
        Column(
            "Is",
            Query(f'max by ({KEYS}, state) (mqi_beam_state{{{BEAM}, state=~"succeeded|failed"}}) == 1'),
            0,
            hidden=True,
        ),
        Column("Why", Query(reason()), 0, hidden=True),
    ],
    sort_by="Ended",
    descending=True,
)

_ALERTS = table(
    "What needs somebody now?",
    "Alerts that fire, by the rules in alerts/mqi-rules.yml. Empty is good.",
    [
        Column("Alert", "alertname", 220),
        Column("Severity", "severity", 90),
        Column("Case", "case_id", 130),
        Column("Beam", "beam_id", 0, properties=(case_link(),)),
        Column("Source", "source", 100),
        Column(
            "Firing",
            Query(
                "count by (alertname, severity, case_id, beam_id, source)"
                f' (ALERTS{{{ALERT}, alertname=~"MQI.+", alertstate="firing"}})',
            ),
            0,
            hidden=True,
        ),
    ],
    sort_by="Severity",
)

_PROGRESS = lines(
    "How did the chosen beams get this far?",
    "The estimate as a line; grey and dashed, the plan's value, which counts started batches and is up to one batch "
    "ahead. Choose beams above.",
    Query(f"max by ({KEYS}) (mqi_beam_progress_estimated_ratio{{{BEAM}}})", "{{case_id}} {{beam_id}}"),
    Query(f"max by ({KEYS}) (mqi_beam_progress_ratio{{{BEAM}}})", "{{case_id}} {{beam_id}}, started"),
    unit="percentunit",
    maximum=1,
    dashed="/, started$/",
    dashed_in_legend=False,
    legend_right=True,
    decimals=0,
)

_CASES = bars(
    "How far is each case?",
    "Mean estimated progress of all beams of a case: one that succeeded counts 1, one that failed what it reached.",
    Query(f"max by (case_id) (mqi_case_progress_ratio{{{EXPORTER}, {CASES_CHOSEN}}})", "{{case_id}}"),
    unit="percentunit",
    maximum=1,
    thresholds=((None, BLUE), (1, GREEN)),
)

_BUCKETS = f"sum by (source, le) (increase(mqi_batch_duration_seconds_bucket{{{SOURCE}}}[1h]))"
_BATCHES = lines(
    "How long does a batch take on each source?",
    "Median and 90th percentile of the batches finished within the hour before, of all beams on a source. Batches "
    "differ in size: compare a source with itself.",
    Query(f"histogram_quantile(0.5, {_BUCKETS})", "{{source}}, half of them at most"),
    Query(f"histogram_quantile(0.9, {_BUCKETS})", "{{source}}, nine of ten at most"),
    unit="s",
    dashed="/nine of ten/",
    none="No batch has finished within the hour",
)

_STATES = lines(
    "What were the beams doing?",
    "Beams by state over time, on the chosen sources. A beam that two exporters follow counts twice.",
    *(
        Query(f'sum(mqi_beams{{{SOURCE}, state=~"{states}"}})', name)
        for states, name in (
            ("starting|running", "running"),
            ("stalled|expired", "stalled"),
            ("failed", "failed"),
            ("waiting", "waiting"),
            ("unreachable", "out of sight"),
        )
    ),
    unit="short",
    stacked=True,
    decimals=0,
    colors={"running": BLUE, "stalled": ORANGE, "failed": RED, "waiting": GREY, "out of sight": PURPLE},
)


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "mqi-beams",
        "MQI beams",
        "How far the Monte Carlo dose simulations are, which of them stand still, and which failed.",
        variables=[
            variable("job", "Job", "label_values(mqi_exporter_build_info, job)", hidden=True),
            variable(
                "instance", "Instance", 'label_values(mqi_exporter_build_info{job=~"$job"}, instance)', hidden=True
            ),
            variable("source", "Source", f"label_values(mqi_beams{{{EXPORTER}}}, source)"),
            variable("case", "Case", f"label_values(mqi_beam_state{{{SOURCE}}}, case_id)"),
            variable("beam", "Beam", f"label_values(mqi_beam_state{{{SOURCE}, {CASES_CHOSEN}}}, beam_id)"),
        ],
        annotations=failures_and_stalls(BEAM),
        panels=rows(
            (None, 5, _NOW),
            (None, 10, [(_RUNNING, 24)]),
            (None, 8, [(_ALERTS, 12), (_CASES, 12)]),
            ("Over time", 10, [(_PROGRESS, 24)]),
            (None, 8, [(_BATCHES, 12), (_STATES, 12)]),
            ("Ended", 9, [(_ENDED, 24)]),
        ),
    )
