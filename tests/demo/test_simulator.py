"""The simulated engine against the captured one."""

from __future__ import annotations

import csv
import itertools
import math
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.demo.simulator import (
    BLOCK_BYTES,
    Player,
    Script,
    Simulation,
    Step,
    play,
    read_growth,
    replay_growth,
    simulate,
)
from exporter.demo.simulator.__main__ import main

LOGS = Path(__file__).parents[1] / "data" / "logs"

CASE_A = Simulation(histories=49350, case_directory="/data/moqui/caseA")
CASE_B = Simulation(histories=5350, case_directory="/data/moqui/caseB")
MOQUI = Simulation(dialect="moqui", histories=133_200, case_directory="/data/moqui/caseB", seed=1932)
MOQUI_GPU = replace(MOQUI, histories=13_200, gpu=True)


def printed_to(simulation: Simulation, name: str) -> Simulation:
    return replace(simulation, output_directory=f"/data/moqui/{name}")


CAPTURED = {
    "v2_b18": printed_to(CASE_A, "out_run_v2_b18_in"),
    "v2_b1": printed_to(replace(CASE_A, batches=(1,), histories_per_batch=60_000), "out_run_v2_b1_in"),
    "v2_b3partial": printed_to(replace(CASE_A, batches=(3,), histories_per_batch=20_000), "out_run_v2_b3p_in"),
    "v2_nobatch": printed_to(replace(CASE_A, batches=(1,), histories_per_batch=0), "out_run_v2_b0_in"),
    "v2_multibeam": printed_to(replace(CASE_B, batches=(6, 6), histories_per_batch=1000), "out_run_v2_beams2_in"),
    "v2_perspot": printed_to(
        replace(CASE_B, dialect="smc-spot", batches=(3,), histories_per_batch=2000), "out_run_v2_perspot_in"
    ),
    "v2_perspot_nobatch": printed_to(
        replace(CASE_B, dialect="smc-spot", batches=(1,), histories_per_batch=0), "out_run_v2_perspot0_in"
    ),
    "v2_output_unwritable": replace(
        CASE_B, batches=(2,), histories_per_batch=5000, failure="output_error", output_directory="/proc/nosuch/dir"
    ),
    "v2_sigkill": printed_to(
        replace(CASE_B, histories_per_batch=300, failure="killed", at_batch=7), "out_run_v2_k18_in"
    ),
    "v2_sigsegv_midrun": printed_to(
        replace(CASE_B, histories_per_batch=300, failure="segmentation_fault", at_batch=4), "out_run_v2_k18_in"
    ),
    "v2_assert_real": printed_to(
        replace(CASE_B, batches=(6,), histories_per_batch=1000, failure="assertion", at_batch=1),
        "out_run_v2assert_s_in",
    ),
    "v2_bad_beamnumber": printed_to(replace(CASE_B, beam_number=9, failure="exception"), "out_run_v2_beam9_in"),
    "v2_beam_without_log": replace(
        printed_to(CASE_B, "out_run_v2_nofield_in"),
        beam_number=2,
        histories_per_batch=1000,
        failure="no_particles",
        case_directory="/data/moqui/caseB1log",
    ),
    "v2gpu_b2": printed_to(replace(CASE_B, batches=(2,), gpu=True), "out_run_v2gpu_b2_in"),
    "v2gpu_b100": printed_to(replace(CASE_B, batches=(100,), gpu=True), "out_run_v2gpu_b100_in"),
    "mgh_b18": MOQUI,
    "mgh_b2": replace(MOQUI, batches=(2,)),
    "mgh_nobatch": replace(MOQUI, batches=(1,), histories_per_batch=0),
    "mgh_stdbuf_b18": replace(MOQUI, line_buffered=True),
    "mgh_sigkill": replace(MOQUI, failure="killed", at_batch=7),
    "mgh_hang_perspot": replace(
        MOQUI,
        dialect="moqui-spot",
        histories=13_200,
        batches=(5,),
        histories_per_batch=3000,
        failure="killed",
        at_batch=4,
    ),
    "mgh_zero_histories": replace(
        MOQUI,
        plan_beams=1,
        spots=10,
        histories_per_batch=1000,
        failure="no_particles",
        case_directory="/data/moqui/caseZ",
    ),
    "mgh_missing_plan": replace(MOQUI, failure="exception", case_directory="/data/moqui/caseNoPlan"),
    "mghgpu_b18": MOQUI_GPU,
    "mghgpu_nobatch": replace(MOQUI_GPU, batches=(1,), histories_per_batch=0),
    "mghgpu_multibeam": replace(MOQUI_GPU, batches=(3, 3), histories_per_batch=5000),
    "mghgpu_sigkill": replace(MOQUI_GPU, failure="killed", at_batch=7),
    "mghgpu_stat": replace(MOQUI_GPU, dialect="moqui-stat", batches=(5,), histories_per_batch=3000, rounds=4),
}


def comparable(log: bytes) -> list[str]:
    """The lines, without what differs: pointers (named by their first appearance), times, garbage, build folders."""
    pointers: dict[str, str] = {}
    text = re.sub(r"0x[0-9a-f]{12}\b", lambda found: pointers.setdefault(found[0], f"P{len(pointers)}"), log.decode())
    text = re.sub(r"(?<=Time taken by MC engine: )[0-9.]+(?= milli-seconds\n)", "T", text)
    text = re.sub(r"(?<= )\d+\.\d{6}(?= (s|ms)\n)", "T", text)
    text = re.sub(r"(?<=^scorer )-?\d+(?= sim type)", "G", text, flags=re.MULTILINE)
    return re.sub(r"/opt/build[^/ ]*/", "BUILD/", text).splitlines()


def sizes(script: Script) -> list[int]:
    return list(itertools.accumulate(len(step.data) for step in script.steps))


@pytest.mark.parametrize("name", CAPTURED)
def test_a_simulated_run_prints_line_for_line_what_the_engine_printed(name: str) -> None:
    captured = comparable((LOGS / f"{name}.log").read_bytes())
    assert comparable(simulate(CAPTURED[name]).data) == captured


@pytest.mark.parametrize(
    ("name", "printed", "wrong"),
    [
        ("v2_b18", b"(7 of 18 batches)", b"(8 of 18 batches)"),
        ("v2_b18", b"Particle count --> 2742 with 18", b"Particle count --> 2742 with 17"),
        ("v2gpu_b100", b"Block size --> 1, Thread size --> 54", b"Block size --> 2, Thread size --> 54"),
        ("mgh_b18", b"cum_vertiex 51800 7400", b"cum_vertiex 51801 7400"),
        ("mghgpu_b18", b"Run transportation 0.", b"run transportation 0."),
        ("mghgpu_stat", b"current uncertainty 1.230915", b"current uncertainty 1.230916"),
    ],
)
def test_the_comparison_sees_one_wrong_line(name: str, printed: bytes, wrong: bytes) -> None:
    log = (LOGS / f"{name}.log").read_bytes()
    assert printed in log
    assert comparable(log.replace(printed, wrong, 1)) != comparable(log)


@pytest.mark.parametrize(
    # The end's size depends on how many digits the times have, what follows it as well.
    "name",
    [name for name in CAPTURED if name != "mghgpu_multibeam"],
)
def test_every_size_that_was_seen_while_a_log_grew_is_one_that_the_simulated_log_has(name: str) -> None:
    seen = {size for _, size in read_growth(LOGS / f"{name}.growth.csv") if size > 0}
    seen.remove(max(seen))
    assert seen <= set(sizes(simulate(CAPTURED[name])))


@pytest.mark.parametrize(
    "name", ["v2_b18", "v2_b3partial", "v2_multibeam", "v2_perspot", "v2gpu_b100", "mgh_b18", "mghgpu_multibeam"]
)
def test_lines_reach_the_file_at_the_flushes_that_were_measured(name: str) -> None:
    lines = 0
    measured: list[int] = []
    with (LOGS / f"{name}.truth.csv").open(newline="") as truth:
        for row in csv.DictReader(truth):
            if row["kind"] == "line":
                lines += 1
            elif lines not in measured[-1:]:
                measured.append(lines)
    steps = simulate(CAPTURED[name]).steps
    assert list(itertools.accumulate(step.data.count(b"\n") for step in steps)) == measured


def test_an_smc_log_grows_twice_a_batch_and_only_by_whole_lines() -> None:
    script = simulate(replace(CASE_A, batch_seconds=10.0, generation_share=0.25))
    start = script.data.index(b"Generating particles for (1 of")
    written = [
        step
        for step, size in zip(script.steps, sizes(script), strict=True)
        if start < size < len(script.data)  # the last write is the end of the process
    ]
    assert [step.data.splitlines()[-1] for step in written] == [
        b"Particle generation complete!",
        b"Particle transportation complete!",
    ] * 18
    assert all(step.data.endswith(b"\n") for step in written)
    assert written[0].data.startswith(b"Generating particles for (1 of 18 batches)")
    for generated, transported in zip(written[::2], written[1::2], strict=True):
        assert transported.delay_seconds == pytest.approx(3 * generated.delay_seconds)
        assert generated.delay_seconds + transported.delay_seconds == pytest.approx(10, rel=0.05)


def test_a_short_moqui_log_stands_still_from_its_head_to_its_end() -> None:
    script = simulate(replace(MOQUI, batch_seconds=5.0))
    assert sizes(script)[-2] == 1386
    assert script.steps[-1].delay_seconds > 18 * 5 * 0.9


def test_a_long_moqui_log_arrives_in_blocks_that_end_inside_lines() -> None:
    script = simulate(replace(MOQUI, batches=(100,)))
    blocks = [step for step in script.steps[:-1] if step.data.count(b"Transporting")]
    assert [len(block.data) for block in blocks] == [BLOCK_BYTES] * 4
    assert not any(block.data.endswith(b"\n") for block in blocks)


def test_line_buffered_output_arrives_line_by_line() -> None:
    script = simulate(replace(MOQUI, line_buffered=True))
    assert all(step.data.count(b"\n") == 1 and step.data.endswith(b"\n") for step in script.steps)
    assert script.data.count(b"Run transportation") == 18


def test_a_killed_process_loses_its_buffer_and_the_shell_adds_its_message() -> None:
    log = simulate(replace(MOQUI, batches=(100,), failure="killed", at_batch=90)).data
    assert len(log) == 1386 + 3 * BLOCK_BYTES + len(b"Killed\n")
    assert re.search(rb"\w+ ?\w+Killed\n$", log)
    assert log.count(b"Generating") < 90


def test_bash_leaves_no_last_word_in_the_log() -> None:
    killed = replace(CASE_A, failure="killed", at_batch=3)
    in_bash = simulate(replace(killed, shell="bash"))
    assert in_bash.data + b"Killed\n" == simulate(killed).data
    assert in_bash.seconds == simulate(killed).seconds
    assert in_bash.exit_code == 137


GPU = replace(CASE_A, gpu=True)


@pytest.mark.parametrize(
    ("simulation", "end", "exit_code"),
    [
        (
            replace(GPU, failure="cuda", at_batch=4),
            (
                b"Histories per batch --> 2742\ncurrent total 0.000000 MB free 0.000000 MB\n"
                b"CUDA error after (transport particle table): an illegal memory access was encountered\n"
            ),
            255,
        ),
        (
            replace(MOQUI_GPU, failure="cuda", at_batch=4),
            (
                b"Simulating particles...\ncurrent total 0.000000 MB free 0.000000 MB\n"
                b"CUDA error: (transport particle) an illegal memory access was encountered\n"
            ),
            255,
        ),
        (
            # Standard error is not buffered: it stands before lines that were printed earlier.
            replace(GPU, failure="out_of_memory", at_batch=4),
            (
                b"Particle generation complete!\n"
                b"GPUassert: out of memory in /opt/build/moqui/base/environments/mqi_tps_env.hpp at line 1340\n"
                b"Transporting particles...\n"
                b"Printing simulation specification.. : Block size --> 7, Thread size --> 512\n"
            ),
            2,
        ),
        (
            replace(CASE_A, failure="out_of_memory", at_batch=4),
            (
                b"Particle transportation complete!\nterminate called after throwing an instance of 'std::bad_alloc'\n"
                b"  what():  std::bad_alloc\nAborted\n"
            ),
            134,
        ),
        (
            replace(CASE_A, failure="terminated", at_batch=18),
            b"(18 of 18 batches) in CPU ..\nParticle generation complete!\nTerminated\n",
            143,
        ),
        (
            replace(CASE_A, failure="hang", at_batch=2),
            b"(2 of 18 batches) in CPU ..\nParticle generation complete!\n",
            None,
        ),
    ],
)
def test_a_failure_ends_the_log_in_its_own_words(simulation: Simulation, end: bytes, exit_code: int | None) -> None:
    script = simulate(simulation)
    assert script.data.endswith(end)
    assert script.exit_code == exit_code
    assert b"Time taken" not in script.data


def test_an_assert_of_moqui_before_any_batch_reached_the_file_stands_before_no_batch() -> None:
    log = simulate(replace(MOQUI, gpu=False, failure="assertion", at_batch=3)).data
    assert re.search(rb"zx,zy,zz .*\ntps_env: \S+: void .*: Assertion `.*' failed\.\nAborted\n$", log)


def test_a_gpu_out_of_memory_in_moqui_stands_before_all_batches() -> None:
    log = simulate(replace(MOQUI_GPU, failure="out_of_memory", at_batch=2)).data
    assert log.index(b"GPUassert: out of memory") < log.index(b"Run by beam")
    assert log.endswith(b"h0 0 h1 734 28\n")


def test_a_run_that_could_not_write_its_dose_ends_as_a_good_one() -> None:
    script = simulate(replace(CASE_A, failure="output_error"))
    assert script.exit_code == 0
    assert re.search(rb"\nCannot open file!\nTime taken by MC engine: \S+ milli-seconds\n$", script.data)


def test_the_same_description_gives_the_same_script_and_another_seed_another() -> None:
    assert simulate(MOQUI_GPU) == simulate(MOQUI_GPU)
    other = simulate(replace(MOQUI_GPU, seed=1933))
    assert [step.delay_seconds for step in other.steps] != [step.delay_seconds for step in simulate(MOQUI_GPU).steps]


def test_the_time_taken_is_the_sum_of_the_delays_in_six_digits() -> None:
    exact = replace(CASE_A, batches=(2,), batch_seconds=(3.0, 4.5), loading_seconds=2.0, saving_seconds=0.5)
    script = simulate(exact)
    assert script.seconds == pytest.approx(10.0)
    assert script.data.endswith(b"Time taken by MC engine: 10000 milli-seconds\n")
    long = simulate(replace(exact, batch_seconds=(900.0, 766.983)))
    assert long.data.endswith(b"Time taken by MC engine: 1.66948e+06 milli-seconds\n")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dialect": "geant"}, "unknown dialect"),
        ({"failure": "fire"}, "unknown failure"),
        ({"shell": "fish"}, "unknown shell"),
        ({"dialect": "moqui-stat"}, "needs a GPU"),
        ({"rounds": 2}, "rounds"),
        ({"failure": "cuda", "at_batch": 1}, "cuda needs a GPU"),
        ({"failure": "assertion", "at_batch": 1, "gpu": True}, "CPU build"),
        ({"failure": "no_particles", "dialect": "smc-spot"}, "per beam only"),
        ({"failure": "killed"}, "needs at_batch"),
        ({"failure": "output_error", "at_batch": 2}, "at_batch needs"),
        ({"failure": "killed", "at_batch": 19}, "no batch 19 of 18"),
        ({"batches": ()}, "there must be"),
        ({"batch_seconds": (1.0,)}, "names 1 of 18"),
        ({"batch_seconds": -1.0}, "negative"),
        ({"generation_share": 1.5}, "part of 1"),
        ({"histories": 20}, "20 histories make no 18 batches of 2"),
    ],
)
def test_a_run_that_the_engine_could_not_make_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulation(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("growth", sorted(path.name for path in LOGS.glob("*.growth.csv")))
def test_a_captured_log_grows_again_as_it_grew(growth: str) -> None:
    log = (LOGS / growth.replace(".growth.csv", ".log")).read_bytes()
    rows = read_growth(LOGS / growth)
    script = replay_growth(log, rows)
    assert script.data == log
    created = next(seconds for seconds, size in rows if size >= 0)
    first_seen = {size: seconds for seconds, size in reversed(rows) if size > 0}
    times = itertools.accumulate(step.delay_seconds for step in script.steps)
    assert dict(zip(sizes(script), times, strict=True)) == {
        size: pytest.approx(seconds - created) for size, seconds in first_seen.items()
    }


@pytest.mark.parametrize(
    ("growth", "message"),
    [([(0.0, 0), (1.0, 5), (2.0, 3)], "shrinks from 5 to 3"), ([(0.0, 0), (1.0, 5)], "ends at 5 bytes")],
)
def test_growth_of_another_log_is_refused(growth: list[tuple[float, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replay_growth(b"ten bytes!", growth)


def test_a_file_without_growth_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="t_s,size_bytes"):
        read_growth(tmp_path / "other.csv")


SHORT = Script((Step(1.0, b"first "), Step(2.0, b"half\n"), Step(0.0, b"second\n"), Step(4.0, b"")), 3)


def test_bytes_reach_the_file_when_they_are_due(tmp_path: Path) -> None:
    log = tmp_path / "sim.log"
    with Player(SHORT, log, started_at=100.0) as player:
        assert player.step(100.5) == 101.0
        assert log.read_bytes() == b""
        assert player.step(101.0) == 103.0
        assert log.read_bytes() == b"first "
        assert player.step(106.9) == 107.0
        assert log.read_bytes() == b"first half\nsecond\n"
        assert player.step(107.0) is None
        assert player.exit_code == 3


def test_speed_divides_every_delay(tmp_path: Path) -> None:
    with Player(SHORT, tmp_path / "sim.log", started_at=0.0, speed=10.0) as player:
        assert player.step(0.0) == pytest.approx(0.1)
        assert player.step(0.15) == pytest.approx(0.3)
        assert player.step(0.35) == pytest.approx(0.7)


def test_an_old_log_is_truncated_first(tmp_path: Path) -> None:
    log = tmp_path / "sim.log"
    log.write_bytes(b"the run before")
    with Player(SHORT, log, started_at=0.0):
        assert log.read_bytes() == b""


def test_a_hanging_process_stays_and_is_never_due(tmp_path: Path) -> None:
    with Player(Script((Step(1.0, b"x"),), None), tmp_path / "sim.log", started_at=0.0) as player:
        assert player.step(1.0) == math.inf
        assert player.step(1e9) == math.inf


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_a_speed_that_is_not_positive_is_refused_and_the_log_left_alone(tmp_path: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Player(SHORT, tmp_path / "sim.log", started_at=0.0, speed=speed)
    assert not (tmp_path / "sim.log").exists()


def test_a_log_that_cannot_be_opened_or_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        play(SHORT, tmp_path / "missing" / "sim.log", speed=1e6)
    with pytest.raises(OSError, match="No space left"):
        play(SHORT, Path("/dev/full"), speed=1e6)


def test_playing_waits_only_as_long_as_the_script_says(tmp_path: Path) -> None:
    now = 50.0
    waits = []

    def wait(seconds: float) -> bool:
        nonlocal now
        waits.append(seconds)
        now += seconds
        return False

    assert play(SHORT, tmp_path / "sim.log", clock=lambda: now, wait=wait) == 3
    assert waits == [1.0, 2.0, 4.0]
    assert (tmp_path / "sim.log").read_bytes() == SHORT.data


def test_stopping_ends_even_a_hanging_process_at_once(tmp_path: Path) -> None:
    stop = threading.Event()
    results: list[int | None] = [0]
    script = Script((Step(0.0, b"started\n"),), None)
    player = threading.Thread(target=lambda: results.append(play(script, tmp_path / "sim.log", wait=stop.wait)))
    player.start()
    stop.set()
    player.join(timeout=10)
    assert not player.is_alive()
    assert results == [0, None]


def test_the_command_regrows_a_captured_log(tmp_path: Path) -> None:
    target = tmp_path / "sim.log"
    names = [str(LOGS / "v2_b18.log"), str(LOGS / "v2_b18.growth.csv"), str(target)]
    result = CliRunner().invoke(main, ["replay", *names, "--speed", "1e6"])
    assert result.exit_code == 0, result.output
    assert target.read_bytes() == (LOGS / "v2_b18.log").read_bytes()


def test_the_command_ends_with_the_exit_code_of_the_engine(tmp_path: Path) -> None:
    target = tmp_path / "sim.log"
    options = ["--batches", "3", "--batches", "2", "--failure", "killed", "--at-batch", "4", "--speed", "1e6"]
    result = CliRunner().invoke(main, ["run", str(target), *options])
    assert result.exit_code == 137, result.output
    assert target.read_bytes().endswith(b"(1 of 2 batches) in CPU ..\nParticle generation complete!\nKilled\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "sim.log", "--failure", "cuda", "--at-batch", "2"], "cuda needs a GPU"),
        (["run", "missing/sim.log"], "No such file or directory"),
        (["replay", str(LOGS / "v2_b18.log"), str(LOGS / "v2_b2.growth.csv"), "sim.log"], "the growth ends at"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output
