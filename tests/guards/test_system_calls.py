"""What idle logs cost, counted in system calls of the exporter as a process: the polls of them and nothing else."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from bench import noisy
from tests.support.process import wait_for
from tests.support.strace import Call, Traced, traced

LOGS = 200
POLLS = 2
"""Of each log, five seconds apart."""
CALLS_PER_WAKE = 8
"""Of the source's thread besides the polls of logs: a wait, reads of hints, and the stats of folders."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """System calls of an exporter while it polls each of many idle logs twice."""
    folder = tmp_path_factory.mktemp("traced")
    logs = folder / "logs"
    logs.mkdir()
    for number in range(LOGS):
        noisy.write(logs / f"c_b{number}.log", 1024)
    config = folder / "exporter.yaml"
    config.write_text(
        f"sources: [{{name: local, kind: local, log_path: '{logs}/{{case_id}}_{{beam_id}}.log'}}]\n"
        "discovery: {kind: directory}\nprogress_tracking: {monitoring: {poll_interval_seconds: 0.5}}\n"
        "web: {listen_address: '127.0.0.1:0'}\n",
        encoding="utf-8",
    )
    with traced(folder / "calls", "--config.file", config) as process:
        wait_for(lambda: process.said("run started") == LOGS, "every log read, and said so")
        _wait_until_quiet(process)
        calls: list[Call] = []

        def over() -> bool:
            calls.extend(process.calls())
            return sum(f"c_b{LOGS - 1}.log" in call.arguments for call in calls) >= POLLS

        wait_for(over, f"{POLLS} polls of each log")
        return calls


def _wait_until_quiet(process: Traced, seconds: float = 2.0) -> None:
    """Wait until no log was polled for so long: after their first polls logs are active, and polled all the time."""
    polled_at = time.monotonic()

    def quiet() -> bool:
        nonlocal polled_at
        if any(".log" in call.arguments for call in process.calls()):
            polled_at = time.monotonic()
        return time.monotonic() - polled_at > seconds

    wait_for(quiet, "quiet logs")


def _source_thread(calls: list[Call]) -> int:
    [thread] = {call.thread for call in calls if f"c_b{LOGS - 1}.log" in call.arguments}
    return thread


def test_a_poll_of_an_idle_log_is_one_stat_every_five_seconds(calls: list[Call]) -> None:
    of_logs = [call for call in calls if ".log" in call.arguments]

    assert {call.name for call in of_logs} <= {"stat", "newfstatat", "statx"}, "no log is opened"
    assert len(of_logs) <= LOGS * POLLS


def test_a_wake_of_the_source_thread_costs_few_calls_besides_its_polls(calls: list[Call]) -> None:
    thread = _source_thread(calls)
    others = [call for call in calls if call.thread == thread and ".log" not in call.arguments]
    wakes = sum(call.name in ("poll", "ppoll") for call in others)

    assert len(others) <= CALLS_PER_WAKE * (wakes + 1), Counter(call.name for call in others)


def test_the_other_threads_do_next_to_nothing_meanwhile(calls: list[Call]) -> None:
    thread = _source_thread(calls)
    others = [call for call in calls if call.thread != thread]

    assert len(others) <= LOGS, Counter(call.name for call in others)
