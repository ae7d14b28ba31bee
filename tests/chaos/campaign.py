"""One whole run: a site, a schedule of faults, a watcher, and the comparison with the oracle when all is over."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.oracle import Oracle
from tests.chaos.schedule import Schedule, plan
from tests.chaos.site import PATIENCE_SECONDS, Site
from tests.chaos.watcher import Watcher
from tests.support.process import wait_for

BEAMS = 50


class ChaosFailed(AssertionError):
    """Something was said that is not so; the message holds all that is needed to look for the cause."""


@dataclass(frozen=True)
class Report:
    """What was survived.

    Args:
        seed, seconds: how to have it again, and how long it took in all.
        survived: faults by kind.
        runs, retries, unsure: of the engine; those retried over the old log; those that may have been missed.
        processes, scrapes: of the exporter.
        checks_while_running, checks_in_the_end: comparisons.
        longest_polls: the longest that a healthy beam was shown as another.
        clocks: sources whose clocks were wrong, and by how much.
    """

    seed: int
    seconds: float
    survived: Counter[str]
    runs: int
    retries: int
    unsure: int
    processes: int
    scrapes: int
    checks_while_running: int
    checks_in_the_end: int
    longest_polls: int
    clocks: str

    def __str__(self) -> str:
        total = self.survived.total() + self.retries
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.survived.items()))
        return (
            f"seed {self.seed}, {self.seconds:.0f} s: survived {total} faults ({faults}, "
            f"retries over the old log {self.retries}); {self.runs} runs of {BEAMS} beams, {self.processes} exporters, "
            f"{self.scrapes} scrapes; {self.checks_while_running} checks meanwhile and {self.checks_in_the_end} in the "
            f"end; a healthy beam was shown as another for {self.longest_polls} polls at most; {self.unsure} runs were "
            "retried before they were surely counted; "
            f"clocks that were wrong: {self.clocks}"
        )


def run(folder: Path, seed: int, seconds: float) -> Report:
    """Let everything go wrong for so long.

    Raises:
        ChaosFailed: the exporter said what is not so.
    """
    began = time.monotonic()
    planned = plan(seed, seconds)
    with Site(folder, BEAMS, seed) as site:
        schedule = Schedule(site, planned)
        watcher, oracle = Watcher(site, schedule), Oracle(site)

        clocks = ", ".join(f"{source} {seconds:+g} s" for source, seconds in site.clock_offsets.items() if seconds)

        def fail(what: list[str]) -> None:
            happened = "\n".join([f"clocks: {clocks}", *schedule.history])
            runs = [f"{beam.beam_id} {beam.source} {run}" for beam in site.beams for run in beam.runs]
            (folder / "runs.txt").write_text("\n".join(runs), encoding="utf-8")
            raise ChaosFailed(
                f"seed {seed}: {len(what)} wrong, first of all\n" + "\n".join(what[:20]) + f"\nafter\n{happened}\n"
                f"(exporter.log and runs.txt are in {folder})"
            )

        def check() -> None:
            if watcher.violations:
                fail(watcher.violations)

        with watcher:
            schedule.run(check)
            site.communicator.close()
            wait_for(lambda: site.communicator.done, "every beam's end", PATIENCE_SECONDS)
            found: list[str] = ["never compared"]
            deadline = time.monotonic() + PATIENCE_SECONDS
            while found and time.monotonic() < deadline:
                check()
                time.sleep(0.5)
                found = oracle.differences()
        check()
        if found:
            fail(found)
        if site.table.integrity() != "ok":
            fail([f"the database is damaged: {site.table.integrity()}"])
        site.end_exporter()
        traces = [line for line in site.said if "unexpected error" in line or "Traceback" in line]
        if traces:
            fail(traces)
        return Report(
            seed=seed,
            seconds=time.monotonic() - began,
            survived=schedule.survived,
            runs=sum(len(beam.runs) for beam in site.beams),
            retries=site.communicator.retries,
            unsure=len(site.communicator.unsure),
            processes=site.processes,
            scrapes=watcher.scrapes,
            checks_while_running=watcher.checks,
            checks_in_the_end=oracle.checks,
            longest_polls=watcher.longest,
            clocks=clocks,
        )
