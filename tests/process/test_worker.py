import threading
from functools import partial

from exporter.process.worker import Worker
from tests.support.process import wait_for


def _has(rounds: list[int], count: int) -> bool:
    return len(rounds) == count


def test_a_worker_continues_after_an_unexpected_error_and_counts_it() -> None:
    errors: list[str] = []
    rounds: list[int] = []

    def step() -> float:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise RuntimeError("once")
        return 0.0

    loop = Worker("test", step, errors.append)
    loop.start()
    wait_for(lambda: len(rounds) > 3, "rounds after the error")
    loop.stop()
    assert loop.join(5)
    assert errors == ["test"]


def test_a_stopped_worker_does_not_wait_for_its_next_step() -> None:
    began = threading.Event()

    def step() -> float:
        began.set()
        return 3600.0

    loop = Worker("test", step, lambda _: None)
    loop.start()
    assert began.wait(10)
    loop.stop()
    assert loop.join(5)


def test_a_woken_worker_starts_its_next_step_at_once() -> None:
    rounds: list[int] = []

    def step() -> float:
        rounds.append(len(rounds))
        return 3600.0

    loop = Worker("test", step, lambda _: None)
    loop.start()
    for count in (1, 2, 3):
        wait_for(partial(_has, rounds, count), f"round {count}")
        loop.wake()
    loop.stop()
    assert loop.join(5)


def test_a_worker_woken_during_a_step_starts_another_at_once() -> None:
    rounds: list[int] = []
    began, release = threading.Event(), threading.Event()

    def step() -> float:
        rounds.append(len(rounds))
        began.set()
        assert release.wait(10)
        return 3600.0

    loop = Worker("test", step, lambda _: None)
    loop.start()
    assert began.wait(10)
    loop.wake()
    release.set()
    wait_for(lambda: len(rounds) == 2, "a round after the one under way")
    loop.stop()
    assert loop.join(5)


def test_a_worker_that_hangs_reports_for_how_long() -> None:
    now = [0.0]
    release, hanging = threading.Event(), threading.Event()

    def step() -> float:
        hanging.set()
        release.wait()
        return 0.0

    loop = Worker("test", step, lambda _: None, clock=lambda: now[0])
    loop.start()
    assert hanging.wait(10)
    assert loop.problem is None
    now[0] = 90.0
    assert loop.problem == "the thread test is 90 s late"
    loop.stop()
    release.set()
    assert loop.join(5)
    assert loop.problem == "the thread test has ended"
