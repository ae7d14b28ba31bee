"""Scrapes the exporter all along and checks what it says of every beam.

A false alarm is measured in polls, not in seconds: a beam that does well may be shown otherwise until its source has
been looked at twice more. Whether it does well is known from its engine: one that itself was late has stalled rightly.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

import httpx

from tests.chaos.beams import Beam, Run
from tests.chaos.oracle import Samples, counted_runs, runs_by_outcome
from tests.chaos.schedule import Schedule
from tests.chaos.site import POLL_SECONDS, Site
from tests.support.process import ExporterProcess
from tests.support.state import written

_POLLS = 2
"""A healthy beam may be shown as another for so many."""

_LATE_SECONDS = 1.0
"""The engine's own silence may have been taken for so much longer: it is dated when it is read."""

_POLLED_WITHIN_SECONDS = 60.0
_ALARMING = ("stalled", "expired", "failed", "succeeded")
_NO_PARTICLES = re.compile(rb"Total histories .*: 0$", re.MULTILINE)
"""What tells that a run has failed although its engine goes on to its usual last line."""
_ON_ITS_WAY = ("starting", "running", "stalled", "expired")
_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_MAY_FAIL = "state"
"""The one part of the exporter that counts an error where the disk is full."""


@dataclass
class _Alarm:
    """A healthy beam is shown as another.

    Args:
        what: is shown.
        polls: looks at its source that worked since then, by their times.
    """

    what: str
    polls: set[float] = field(default_factory=set)


@dataclass
class _Host:
    """A source.

    Args:
        faults: how many it has had.
        polls: looks at it that worked since the last of them was over, by their times.
    """

    faults: int = 0
    polls: set[float] = field(default_factory=set)

    @property
    def fine(self) -> bool:
        """What its last fault has broken has shown."""
        return not self.faults or len(self.polls) > _POLLS


class Watcher:
    """Ended at the end of the ``with`` block.

    Attributes:
        violations: what must never be shown and was.
        checks, scrapes: how many.
        longest: the most polls that a healthy beam was shown as another.
    """

    def __init__(self, site: Site, schedule: Schedule) -> None:
        self.violations: list[str] = []
        self.checks = 0
        self.scrapes = 0
        self.longest = 0
        self._site = site
        self._schedule = schedule
        self._alarms: dict[tuple[Beam, Run, int], _Alarm] = {}
        self._hosts: dict[str, _Host] = {}
        self._estimates: dict[Beam, tuple[object, float]] = {}
        self._counters: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._counters_of = 0
        self._counted: dict[tuple[Beam, Run], tuple[int, set[object]]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            exporter, process = self._site.exporter, self._site.processes
            suspended = self._site.communicator.stopped.is_set()
            if exporter is None or suspended or not exporter.said("exporter started"):
                continue
            before = {beam: beam.run for beam in self._site.beams if beam.runs and beam.run.going}
            try:
                samples = _samples(exporter)
                self._confirm(exporter)
            except httpx.HTTPError as error:
                # Killed, or stopped, meanwhile.
                if self._site.processes == process and "exporter" not in self._schedule.busy:
                    self._expect(self._site.exporter is not exporter, f"a scrape failed: {error!r}")
                continue
            self.scrapes += 1
            self._check_sources(samples)
            self._check_beams(samples, before, process)
            self._check_counters(samples, process)

    def _expect(self, holds: bool, violation: str) -> None:
        self.checks += 1
        if not holds:
            self.violations.append(f"{self._schedule.elapsed:7.1f} s  {violation}")

    def _confirm(self, exporter: ExporterProcess) -> None:
        """Which runs have been counted and are in the state file, so that no kill can make them uncounted."""
        if self._site.ballast.exists() or not self._site.state_file.exists():
            return
        answer = exporter.get("/api/v1/beams").json()
        shown = {beam["beam_id"]: beam for beam in answer["beams"]}
        counted = {(run["beam_id"], run["run"]) for run in answer["ended"]}
        state = written(self._site.state_file)
        for beam in self._site.beams:
            if not beam.runs or beam.run.ended_at is None or beam.run.confirmed or not beam.log.exists():
                continue
            its = shown.get(beam.beam_id)
            if its is None or (beam.beam_id, its["run"]) not in counted:
                continue
            if its["state"] != beam.run.truth.outcome or its["log_size_bytes"] != beam.log.stat().st_size:
                continue
            _, states = self._counted.setdefault((beam, beam.run), (its["run"], set()))
            states.add(state)
            beam.run.confirmed = len(states) > 2

    def _check_sources(self, samples: Samples) -> None:
        for (name, labels), value in samples.items():
            if name not in ("mqi_source_up", "mqi_source_last_poll_timestamp_seconds"):
                continue
            source = dict(labels)["source"]
            # The SSH library waits by the time of day: an answer that is under way when that is set comes too late.
            faults = self._schedule.begun[source] + self._schedule.begun["clock"]
            host = self._hosts.setdefault(source, _Host())
            if faults > host.faults or source in self._schedule.busy:
                self._hosts[source] = _Host(faults)
            elif name == "mqi_source_up" and value == 0 and _polled(samples, source):
                self._expect(not host.fine, f"source {source} is shown as down and nothing was wrong with it")
                host.polls.clear()
            elif name == "mqi_source_last_poll_timestamp_seconds" and not host.fine:
                host.polls.add(value)

    def _check_beams(self, samples: Samples, before: dict[Beam, Run], process: int) -> None:
        by_beam: dict[str, dict[str, float]] = {}
        states: dict[str, str] = {}
        polled: dict[str, float] = {}
        for (name, labels), value in samples.items():
            its = dict(labels)
            if "beam_id" in its:
                if name == "mqi_beam_state":
                    if value:
                        states[its["beam_id"]] = its["state"]
                else:
                    by_beam.setdefault(its["beam_id"], {})[name] = value
            elif name == "mqi_source_last_poll_timestamp_seconds":
                polled[its["source"]] = value
        now, engine_now = self._site.clock.now(), self._site.engines.now()
        alarms: dict[tuple[Beam, Run, int], _Alarm] = {}
        for beam in self._site.beams:
            shown, state = by_beam.get(beam.beam_id, {}), states.get(beam.beam_id)
            if state is None:
                continue
            self._check_values(beam, shown, state, process)
            run = before.get(beam)
            source_fine = self._hosts.get(beam.source, _Host()).fine
            if source_fine and not beam.troubled and state == "waiting" and _has_ended(beam):
                self._shown_wrongly(alarms, beam, beam.run, process, "waiting, though its log is there", shown, polled)
            if run is None or run is not beam.run or not run.going or beam.troubled or not source_fine:
                continue
            if state == "failed" and _has_told_failure(beam, run):
                continue
            what = self._alarming(run, shown, state, now, polled.get(beam.source, 0.0), engine_now)
            if what is None:
                continue
            self._shown_wrongly(alarms, beam, run, process, what, shown, polled)
        self.checks += len(before)
        self._alarms = alarms

    def _shown_wrongly(
        self,
        alarms: dict[tuple[Beam, Run, int], _Alarm],
        beam: Beam,
        run: Run,
        process: int,
        what: str,
        shown: dict[str, float],
        polled: dict[str, float],
    ) -> None:
        """A run is shown as what it is not, which may be for a few polls."""
        key = (beam, run, process)
        alarm = alarms[key] = self._alarms.get(key) or _Alarm(what)
        alarm.polls.add(polled.get(beam.source, 0.0))
        self.longest = max(self.longest, len(alarm.polls) - 1)
        if len(alarm.polls) == _POLLS + 2:
            engine_silent = self._site.engines.now() - run.wrote_at
            self.violations.append(
                f"{self._schedule.elapsed:7.1f} s  {beam.beam_id} at {beam.source} ({run.simulation.dialect}, run "
                f"{run.number}) wrote {engine_silent:.1f} s ago and is shown as {what}: {shown}"
            )

    def _alarming(
        self, run: Run, shown: dict[str, float], state: str, now: float, polled_at: float, engine_now: float
    ) -> str | None:
        """What is wrongly said of a run that is going on; ``None`` where nothing is."""
        threshold = shown["mqi_beam_stall_threshold_seconds"]
        if engine_now - run.wrote_at > threshold - _LATE_SECONDS:
            return None
        if state in _ALARMING:
            return state
        progress_at = shown.get("mqi_beam_last_progress_timestamp_seconds")
        recent = now - polled_at < _POLLED_WITHIN_SECONDS
        if progress_at is not None and state in _ON_ITS_WAY and recent and now - progress_at > threshold:
            return f"{state}, but stalled by the alert's expression"
        return None

    def _check_values(self, beam: Beam, shown: dict[str, float], state: str, process: int) -> None:
        total, current = shown.get("mqi_beam_batches_total"), shown["mqi_beam_batch_current"]
        completed, ratio = shown["mqi_beam_batches_completed"], shown["mqi_beam_progress_ratio"]
        estimated, number = shown["mqi_beam_progress_estimated_ratio"], int(shown["mqi_beam_run"])
        about = f"{beam.beam_id}, {state}: {shown}"
        self._expect(0 <= completed <= current <= (total if total is not None else current), f"batches of {about}")
        self._expect(0 <= ratio <= 1, f"progress of {about}")
        self._expect(0 <= estimated <= 1 and (estimated < 1 or state == "succeeded"), f"estimate of {about}")
        self._expect(shown.get("mqi_beam_remaining_seconds", 0.0) >= 0, f"remaining time of {about}")
        self._expect(number <= max(1, len(beam.runs)), f"run of {about}, which has had {len(beam.runs)}")
        duration = shown.get("mqi_beam_batch_duration_seconds", 0.0)
        self._expect(0 <= duration <= self._schedule.elapsed + _LATE_SECONDS, f"duration of {about}")
        run = (process, number, total)
        before = self._estimates.get(beam)
        if before is not None and before[0] == run:
            self._expect(estimated >= before[1] - 1e-9, f"estimate, which was {before[1]}, of {about}")
        if "mqi_beam_start_timestamp_seconds" in shown:
            self._estimates[beam] = (run, estimated)
        else:
            # Its row alone has told: where that said that it succeeded, it may be set back without a new run.
            self._estimates.pop(beam, None)

    def _check_counters(self, samples: Samples, process: int) -> None:
        ended = runs_by_outcome(self._site.beams)
        for beam in self._site.beams:
            if beam.runs and beam.run.going and beam.run.truth.reason == "no_particles":
                # It may have told so already, and is counted then, while its engine goes on to its usual last line.
                ended[beam.source, beam.run.truth.outcome, beam.run.truth.reason] += 1
        for key, count in counted_runs(samples).items():
            self._expect(count <= ended[key], f"runs {key}: {count} counted, {ended[key]} have ended")
        completed = sum(run.truth.completed for beam in self._site.beams for run in beam.runs)
        timed = sum(value for (name, _), value in samples.items() if name == "mqi_batch_duration_seconds_count")
        self._expect(timed <= completed, f"{timed} batches timed, there have been {completed} at most")
        counters = {key: value for key, value in samples.items() if key[0].endswith(("_total", "_count"))}
        counters = {key: value for key, value in counters.items() if key[0] != "mqi_beam_batches_total"}
        for (name, labels), value in counters.items():
            its = dict(labels)
            if name == "mqi_exporter_errors_total" and its["where"] != _MAY_FAIL:
                self._expect(value == 0, f"unexpected errors in {its['where']}")
        if process == self._counters_of:
            back = [key for key, value in self._counters.items() if counters.get(key, value) < value]
            self._expect(not back, f"counters went back: {back}")
        self._counters, self._counters_of = counters, process


def _has_ended(beam: Beam) -> bool:
    """The beam's current run has ended and its log is there."""
    return bool(beam.runs) and beam.run.ended_at is not None and beam.log.exists()


def _has_told_failure(beam: Beam, run: Run) -> bool:
    """Its log says already how the run will end."""
    try:
        return run.truth.reason == "no_particles" and bool(_NO_PARTICLES.search(beam.log.read_bytes()))
    except OSError:  # a fault holds it
        return False


def _polled(samples: Samples, source: str) -> bool:
    """Whether this process has polled a source yet."""
    return bool(samples.get(("mqi_source_poll_seconds_count", frozenset({("source", source)}))))


def _samples(exporter: ExporterProcess) -> Samples:
    """As :meth:`ExporterProcess.metrics`, but in a tenth of the time: no id of this site has anything to unescape."""
    text = exporter.get("/metrics").raise_for_status().text
    lines = (_SAMPLE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
    return {
        (line["name"], frozenset(_LABEL.findall(line["labels"] or ""))): float(line["value"]) for line in lines if line
    }
