"""What idle logs cost, counted in system calls of the exporter as a process: the looks at them and nothing else."""

from __future__ import annotations

import itertools
import os
from collections import Counter

import pytest

from bench import noisy
from tests.support.process import wait_for
from tests.support.strace import Call, Traced, traced

LOGS = 200
POLL_SECONDS = 0.1
ROUNDS_PER_ANNOUNCED_LOG = 50
"""A log whose changes are announced is looked at every 5 s."""
ROUNDS = 25
KINDS = ("announced", "polled")

CALLS_OF_A_ROUND = 4
"""Besides the looks: two waits, one for being woken and one for announcements, and the reads of both."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """System calls of some rounds of an exporter that follows idle logs, announced ones and polled ones."""
    folder = tmp_path_factory.mktemp("traced")
    for kind in KINDS:
        (folder / kind).mkdir()
        for number in range(LOGS):
            noisy.write(folder / kind / f"{kind}_b{number}.log", 1024)
    (folder / "second").mkdir()
    for log in (folder / "polled").iterdir():
        # A log of two names is not announced.
        os.link(log, folder / "second" / log.name)
    templates = ", ".join(f"'{folder}/{kind}/{{case_id}}_{{beam_id}}.log'" for kind in KINDS)
    config = folder / "exporter.yaml"
    config.write_text(
        f"sources: [{{name: local, kind: local, log_path: [{templates}]}}]\ndiscovery: {{kind: directory}}\n"
        f"progress_tracking: {{monitoring: {{poll_interval_seconds: {POLL_SECONDS}}}}}\n"
        "web: {listen_address: '127.0.0.1:0'}\n",
        encoding="utf-8",
    )
    with traced(folder / "calls", "--config.file", config) as process:
        wait_for(lambda: process.said("run started") == len(KINDS) * LOGS, "every log read, and said so")
        _next_rounds(process, 10)
        return _next_rounds(process, ROUNDS)


def _next_rounds(process: Traced, rounds: int) -> list[Call]:
    """All system calls while a polled log is looked at so many times."""
    calls: list[Call] = []

    def over() -> bool:
        calls.extend(process.calls())
        return sum("polled_b7.log" in call.arguments for call in calls) >= rounds

    wait_for(over, f"{rounds} looks at each polled log")
    return calls


def _following(calls: list[Call]) -> list[Call]:
    """Those of the thread that looks at logs."""
    [thread] = {call.thread for call in calls if "polled_b7.log" in call.arguments}
    return [call for call in calls if call.thread == thread]


def _rounds(following: list[Call]) -> int:
    """How often looks at logs began after something else."""
    looks = [".log" in call.arguments for call in following]
    return looks[0] + sum(now and not before for before, now in itertools.pairwise(looks))


def test_a_poll_of_an_idle_log_is_one_stat_and_of_an_announced_one_a_fiftieth(calls: list[Call]) -> None:
    following = _following(calls)
    of_logs = [call for call in following if ".log" in call.arguments]
    looks = Counter(kind for call in of_logs for kind in KINDS if f"{kind}_b" in call.arguments)

    assert {call.name for call in of_logs} <= {"stat", "newfstatat", "statx"}, "no log is opened"
    assert looks["polled"] <= LOGS * _rounds(following)
    assert looks["announced"] <= LOGS * _rounds(following) / ROUNDS_PER_ANNOUNCED_LOG


def test_a_round_costs_four_calls_besides_its_looks(calls: list[Call]) -> None:
    following = _following(calls)
    others = [call for call in following if ".log" not in call.arguments]

    assert len(others) <= 1.4 * CALLS_OF_A_ROUND * (_rounds(following) + 1), Counter(call.name for call in others)


def test_the_other_threads_do_next_to_nothing_meanwhile(calls: list[Call]) -> None:
    following = _following(calls)
    others = [call for call in calls if call.thread != following[0].thread]

    assert len(others) <= LOGS, Counter(call.name for call in others)
