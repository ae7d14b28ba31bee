"""The command ``verify``: shows what the exporter recognises in a finished log.

The log is parsed as if it were growing. Nothing is stored.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from exporter.beams.dose import NO_ENGINE_TIMES, EngineTimes
from exporter.beams.labels import dose_text
from exporter.beams.run import BeamRun
from exporter.cli.configuration import identifiers_for, load_settings
from exporter.cli.flags import Flags, config_flag, examples
from exporter.logs.events import (
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    DialectRecognised,
    DoseDescribed,
    DoseWritten,
    EngineTimed,
    Event,
    HistoriesCounted,
    LogRead,
    PhaseEntered,
    RunFailed,
    RunHead,
    RunSucceeded,
)
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.privacy.identifiers import Identifiers, PlainIdentifiers
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogProblem, ReadRequest

_READ_BYTES = 1 << 20
_DIALECTS = {
    "smc": "the communicator's engine, per beam",
    "smc-spot": "the communicator's engine, per spot",
    "moqui": "the original moqui, per beam",
    "moqui-spot": "the original moqui, per spot",
    "moqui-stat": "the original moqui, until its statistics are good enough",
    "unknown": "the log ends before a line that tells",
}
_LINES = {
    RunHead: "engine head",
    PhaseEntered: "phase",
    HistoriesCounted: "histories",
    BatchesAnnounced: "batches announced",
    BatchStarted: "batch started",
    BatchFinished: "batch finished",
    DoseDescribed: "dose described",
    DoseWritten: "dose written",
    EngineTimed: "engine's own timing",
    RunSucceeded: "normal end",
    RunFailed: "failure",
}


_PUBLIC_KEYS = frozenset(
    {
        "log",
        "dialect",
        "outcome",
        "reason",
        "batches_total",
        "batches_started",
        "batches_completed",
        "progress_ratio",
        "particles",
        "anomalies",
        "buffered",
        "dose_path",
        "dose_dimensions",
        "dose_max_gy",
        "doses_written",
        "dose_text",
        "engine_times",
    }
)


@dataclass
class Report:
    """What was recognised in one log. If it could not be read, only ``log`` and ``error`` are set."""

    log: str
    dialect: str = "unknown"
    outcome: str = "none"
    reason: str | None = None
    batches_total: int | None = None
    batches_started: int = 0
    batches_completed: int = 0
    progress_ratio: float = 0.0
    particles: int | None = None
    anomalies: dict[str, int] = field(default_factory=dict)
    buffered: bool = False
    phases: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    unfinished_line: bool = False
    announcements: int = 0
    particles_per_batch: int | None = None
    text: str | None = None
    dose_path: str | None = None
    dose_dimensions: str | None = None
    dose_max_gy: float | None = None
    doses_written: int = 0
    dose_text: str | None = None
    engine_times: EngineTimes = NO_ENGINE_TIMES
    error: str | None = None

    @property
    def understood(self) -> bool:
        """Whether any pattern matched."""
        return bool(self.lines)

    def as_json(self) -> dict[str, Any]:
        """Return the report with its public keys only."""
        report = {key: value for key, value in asdict(self).items() if key in _PUBLIC_KEYS}
        return report if self.error is None else {**report, "error": self.error}


def verify(path: Path, site: SitePatterns, shown: Identifiers | None = None, name: str | None = None) -> Report:
    """Read one log to its end.

    Args:
        path: the log.
        site: the site's own patterns, searched in addition to the built-in ones.
        shown: how lines, paths and errors are shown; unchanged by default.
        name: name of the log in the report; by default its path.
    """
    shown = shown or PlainIdentifiers()
    report = Report(name or str(path))
    source, parser, run = LocalLogSource("local"), TpsLogParser(site), BeamRun()
    stat = source.stat([str(path)]).get(str(path))
    if stat is None or isinstance(stat, LogProblem):
        report.error = shown.problem(stat) if stat is not None else f"{report.log}: no such file"
        return report
    lines: Counter[str] = Counter()
    while True:
        [data] = source.read([ReadRequest(str(path), report.size_bytes, _READ_BYTES)])
        if isinstance(data, LogProblem):
            report.error = shown.problem(data)
            return report
        if not data:
            break
        report.size_bytes += len(data)
        for event in parser.feed(data):
            run.apply(event, stat.modified_at)
            _note(event, lines, report)
    run.apply(LogRead(report.size_bytes, parser.line_complete, live=False), stat.modified_at)
    _describe(run, parser, lines, report)
    if report.text is not None:
        report.text = shown.text(report.text)
    if report.dose_path is not None:
        report.dose_path = shown.path(report.dose_path)
    return report


def _note(event: Event, lines: Counter[str], report: Report) -> None:
    name = _LINES.get(type(event))
    if name is not None:
        lines[name] += 1
    if isinstance(event, PhaseEntered) and event.phase not in report.phases:
        report.phases.append(event.phase)
    if isinstance(event, DialectRecognised):
        report.dialect = event.dialect
    if isinstance(event, RunSucceeded):
        report.text = event.text


def _describe(run: BeamRun, parser: TpsLogParser, lines: Counter[str], report: Report) -> None:
    report.lines = dict(lines)
    report.outcome = "failed" if run.failed else "succeeded" if run.succeeded else "none"
    report.reason = run.reason
    if run.reason is not None:
        report.text = run.failures[run.reason]
    report.batches_total = run.batches.total
    report.batches_started = run.batches.started
    report.batches_completed = run.batches.finished
    report.progress_ratio = run.batches.ratio
    report.announcements = run.batches.announcements
    report.particles = run.particles
    report.particles_per_batch = run.particles_per_batch
    report.anomalies = dict(run.anomalies)
    report.buffered = run.buffered
    report.unfinished_line = not parser.line_complete
    dose = run.dose
    report.dose_path, report.dose_dimensions, report.dose_max_gy = dose.path, dose.dimensions, dose.max_dose_gy
    report.doses_written = dose.written
    report.dose_text = dose_text(run.reason, written_before_failure=dose.written_before(run.reason))
    report.engine_times = run.engine_times


def text(report: Report) -> str:
    """Return the report as eleven lines of text."""
    if report.error is not None:
        return f"{report.log}\n  cannot be read: {report.error}"
    rows = [
        ("dialect", f"{report.dialect} ({_DIALECTS[report.dialect]})"),
        ("lines", ", ".join(f"{count} x {name}" for name, count in report.lines.items()) or _NOTHING),
        ("batches", _batches(report)),
        ("particles", _particles(report)),
        ("phases", ", ".join(report.phases) or "none"),
        ("dose", _dose(report)),
        ("outcome", _outcome(report)),
        ("progress", f"{100 * report.progress_ratio:.2f} % (batch {report.batches_started} started)"),
        ("arrives", _arrival(report)),
        ("anomalies", ", ".join(f"{count} x {kind}" for kind, count in report.anomalies.items()) or "none"),
    ]
    return "\n".join([f"{report.log} ({report.size_bytes} bytes)", *(f"  {name:<10} {value}" for name, value in rows)])


_NOTHING = "none is known: add your engine's wording to progress_tracking.patterns and completion_markers"


def _batches(report: Report) -> str:
    if report.batches_total is None:
        return "never announced: no progress can be shown"
    times = f" in {report.announcements} announcements" if report.announcements > 1 else ""
    return (
        f"{report.batches_total} announced{times}, {report.batches_started} started, "
        f"{report.batches_completed} finished"
    )


def _particles(report: Report) -> str:
    if report.particles is None and report.particles_per_batch is None:
        return "not said"
    total = "unknown" if report.particles is None else str(report.particles)
    return f"{total} in all, {report.particles_per_batch or 'unknown'} in a full batch"


def _dose(report: Report) -> str:
    if report.dose_path is None:
        return "the log does not say that a dose file was written"
    facts = [report.dose_dimensions] if report.dose_dimensions is not None else []
    if report.dose_max_gy is not None:
        facts.append(f"at most {report.dose_max_gy:.4g} Gy")
    if report.doses_written > 1:
        facts.append(f"the last of {report.doses_written}")
    return f"{report.dose_path} ({', '.join(facts)})" if facts else report.dose_path


def _outcome(report: Report) -> str:
    quoted = f': "{report.text}"' if report.text else ""
    if report.outcome == "failed":
        return f"failed ({report.reason}){quoted}" + (f"; {report.dose_text}" if report.dose_text else "")
    if report.outcome == "succeeded":
        parts = [f"{value:.1f} s {name}" for name, value in _parts(report.engine_times)]
        return f"succeeded{quoted}" + (f" (of it {', '.join(parts)})" if parts else "")
    return "none: it runs still, or was ended without a word (then only the row in the database tells)"


def _parts(times: EngineTimes) -> list[tuple[str, float]]:
    parts = (
        ("initialization", times.initialization_seconds),
        ("simulation", times.simulation_seconds),
        ("output", times.output_seconds),
    )
    return [(name, value) for name, value in parts if value is not None]


def _arrival(report: Report) -> str:
    if report.buffered:
        return (
            "in blocks of 4096 bytes or all at its end: batches show late, a stall is called late; "
            "start the engine with `stdbuf -oL` to have each line at once"
        )
    if report.dialect == "smc" and report.batches_total is not None:
        return "twice per batch: a batch shows when its particles are generated, and when they are transported"
    unfinished = "; its last line is unfinished" if report.unfinished_line else ""
    return f"not told by what is there{unfinished}"


@click.command(
    name="verify",
    epilog=examples("mqi-exporter verify /data/logs/sim_70010001_beam_2.log", "mqi-exporter verify --json *.log"),
)
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LOG...")
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of text.")
@config_flag
@click.pass_context
def verify_command(context: click.Context, logs: tuple[Path, ...], as_json: bool) -> None:
    """Show what the exporter recognises in these logs.

    If there is a configuration, its patterns are used; under pseudonyms, names and lines of logs are redacted. Exit
    status 1 if a log cannot be read or nothing in it is recognised.
    """
    flags: Flags = context.obj
    if not flags.configured:
        reports = [verify(log, SitePatterns()) for log in logs]
    else:
        from exporter.runtime.pipeline import site_patterns

        settings = load_settings(flags)
        site, shown = site_patterns(settings), identifiers_for(settings)
        named = settings.privacy.identifiers == "plain"
        reports = [
            verify(log, site, shown, str(log) if named else f"log {number} of {len(logs)}")
            for number, log in enumerate(logs, 1)
        ]
    if as_json:
        click.echo(json.dumps([report.as_json() for report in reports], ensure_ascii=False, indent=2))
    else:
        click.echo("\n\n".join(text(report) for report in reports))
    if not all(report.understood for report in reports):
        context.exit(1)
