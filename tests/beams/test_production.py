"""Logs of the production engine, with and without lines about batches, read up to each of their lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.beams.run import BeamRun
from exporter.beams.saved import RestoredState
from exporter.beams.snapshot import BeamState
from exporter.cli.verify import text, verify
from exporter.logs.events import LogRead, RunFailed
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.runtime.event_log import log_event
from tests.support.world import BEAM, World, quick

LOGS = Path(__file__).parents[1] / "data" / "production"
GOOD = ["with_batches", "without_batches", "without_banner", "two_beams", "two_beams_without_batches"]
DOSE = "../data/Dose_dcm/90000001/{beam}G000:TX_2_Dose.dcm"


def lines(name: str) -> list[bytes]:
    return (LOGS / f"{name}.log").read_bytes().splitlines(keepends=True)


def reading(data: bytes) -> BeamRun:
    parser, run = TpsLogParser(), BeamRun()
    for event in parser.feed(data):
        run.apply(event, 1000.0)
    run.apply(LogRead(len(data), parser.line_complete, live=False), 1000.0)
    return run


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick())


@pytest.mark.parametrize("name", GOOD)
def test_a_growing_production_log_goes_from_waiting_to_succeeded(world: World, name: str) -> None:
    world.row()
    world.look()
    states, phases = [world.state], [world.view().phase]
    for line in lines(name):
        world.write(line)
        world.look(0.2)
        view = world.view()
        assert (view.reason, view.log_unmatched) == (None, False), line
        if view.state != states[-1]:
            states.append(view.state)
        if view.phase != phases[-1]:
            phases.append(view.phase)
    assert states == ["waiting", "starting", "running", "succeeded"]
    one_beam = ["preparing", "loading", "simulating", "saving"]
    assert phases == [None, "loading", *one_beam * (2 if name.startswith("two") else 1)]
    assert world.view().run_number == 1
    assert world.view().dialect == "smc"
    world.look(5)
    assert world.runs == {("succeeded", ""): 1}


@pytest.mark.parametrize(("from_the_start", "seconds"), [(True, 0.5), (False, 11.4)])
def test_the_engines_timing_gives_the_duration_of_a_run_whose_start_was_not_seen(
    world: World, from_the_start: bool, seconds: float
) -> None:
    known = lines("without_batches")
    world.row()
    if from_the_start:
        world.look()
    world.write(b"".join(known[:-1]))
    world.look()
    world.write(known[-1])
    world.look()
    with capture_logs() as said:
        for event in world.store.pop_events():
            log_event(event)
    [took] = [line["seconds"] for line in said if line["event"] == "run succeeded"]
    assert took == pytest.approx(seconds)


@pytest.mark.parametrize("name", GOOD)
def test_no_part_of_a_growing_production_log_is_a_failure(name: str) -> None:
    data = b"".join(lines(name))
    for end in range(0, len(data) + 1, 7):
        run = reading(data[:end])
        assert not run.failed
        assert run.succeeded == (b"\nTotal execution time:" in data[:end] and end == len(data))


@pytest.mark.parametrize("name", GOOD)
def test_the_dose_and_the_engines_timing_are_facts_of_the_run(name: str) -> None:
    run = reading(b"".join(lines(name)))
    beams = 2 if name.startswith("two") else 1
    assert run.dose.path == DOSE.format(beam=beams)
    assert (run.dose.dimensions, run.dose.max_dose_gy, run.dose.written) == ("400x400x1", 1.56002e-05, beams)
    times = run.engine_times
    assert times.initialization_seconds == pytest.approx(2.16 * beams, abs=0.01)
    assert times.simulation_seconds is not None
    assert 8 * beams < times.simulation_seconds < 8.5 * beams
    assert times.output_seconds == pytest.approx(0.6 * beams)
    assert times.total_seconds == pytest.approx({1: 11.375, 2: 22.275}[beams])


@pytest.mark.parametrize(
    ("name", "reason", "dose_text"),
    [
        ("empty_dose", "empty_dose", None),
        ("dose_not_written", "output_error", None),
        ("crash_after_dose", "aborted", "the dose file was written before the crash"),
        ("killed", "killed", None),
    ],
)
def test_a_failed_production_run_says_why_and_whether_its_dose_was_written(
    name: str, reason: str, dose_text: str | None
) -> None:
    report = verify(LOGS / f"{name}.log", SitePatterns())
    assert (report.outcome, report.reason, report.dose_text) == ("failed", reason, dose_text)
    assert (dose_text or "the dose file was written") in text(report) or dose_text is None


@pytest.mark.parametrize("zero", [b"0", b"0.0", b"0.000", b"0e+00", b"0.0e0", b"-0", b"0.000000E-00"])
@pytest.mark.parametrize("line", [b"  Max dose: %s Gy", b"  Max dose: %s", b"DCM Save Info - Max dose: %s"])
def test_a_largest_dose_of_zero_is_an_empty_dose(line: bytes, zero: bytes) -> None:
    [failure] = [event for event in TpsLogParser().feed(line % zero + b"\n") if isinstance(event, RunFailed)]
    assert failure.reason == "empty_dose"


@pytest.mark.parametrize(
    "line",
    [
        b"  Max dose: 1.56002e-05 Gy",
        b"  Max dose: 1e-300 Gy",
        b"  Max dose: 0.5 Gy",
        b"  Maximum dose: 0.000 Gy",  # rounded: the public variant that prints it has written a dose
        b"  Max dose: nan Gy",
        b"Maximum dose: 4.665111e-07",
        b"DCM Save Info - Max dose: 7.20724e-07",
    ],
)
def test_another_largest_dose_is_no_failure(line: bytes) -> None:
    assert not any(isinstance(event, RunFailed) for event in TpsLogParser().feed(line + b"\n"))


def test_no_particles_is_the_cause_of_an_empty_dose() -> None:
    run = reading(b"Total histories (Particles) : 0\n  Max dose: 0 Gy\nTime taken by MC engine: 1 milli-seconds\n")
    assert run.reason == "no_particles"


def test_a_crash_in_the_next_beam_does_not_say_that_its_dose_was_written() -> None:
    data = b"".join(lines("two_beams"))
    of_the_second = data.index(b"Generating particles for (2 of 3", data.index(b"Beam ID: 2"))
    run = reading(data[:of_the_second] + b"Segmentation fault (core dumped)\n")
    assert (run.reason, run.dose.written) == ("segmentation_fault", 1)
    assert not run.dose.written_before(run.reason)


def test_a_description_before_the_file_is_written_belongs_to_that_file() -> None:
    first = (
        b"DCM Save Info - Dimension: (4, 5, 6)\nDCM Save Info - Max dose: 2e-07\nSuccessfully wrote DICOM file: a.dcm\n"
    )
    second = b"DCM Save Info - Dimension: (7, 8, 9)\nDCM Save Info - Max dose: 3e-07\n"
    run = reading(first + second)
    assert (run.dose.path, run.dose.dimensions, run.dose.max_dose_gy) == ("a.dcm", "4x5x6", 2e-07)
    run = reading(first + second + b"Successfully wrote DICOM file: b.dcm\n")
    assert (run.dose.path, run.dose.dimensions, run.dose.max_dose_gy) == ("b.dcm", "7x8x9", 3e-07)


def test_a_dose_path_is_bounded() -> None:
    run = reading(b"Successfully wrote DICOM file: " + b"x" * 60_000 + b".dcm\n")
    assert run.dose.path is not None
    assert len(run.dose.path) == 1024


@pytest.mark.parametrize("size", [1, 7, 100, 4096])
def test_slices_of_a_production_log_give_the_same_facts(size: int) -> None:
    data = b"".join(lines("two_beams_without_batches"))
    parser, run = TpsLogParser(), BeamRun()
    for start in range(0, len(data), size):
        for event in parser.feed(data[start : start + size]):
            run.apply(event, 1000.0)
    whole = reading(data)
    assert (run.dose, run.engine_times, run.phase, run.dialect) == (
        whole.dose,
        whole.engine_times,
        whole.phase,
        whole.dialect,
    )


@pytest.mark.parametrize("name", ["without_batches", "without_banner"])
def test_a_retry_appended_to_a_production_log_is_run_2(world: World, name: str) -> None:
    world.row()
    world.look()
    data = b"".join(lines(name))
    world.write(data)
    world.look()
    assert world.state == BeamState.SUCCEEDED
    head = data[: data.index(b"RT Plan type")]
    world.write(head)
    world.look()
    assert (world.state, world.view().run_number, world.view().dose_path) == (BeamState.STARTING, 2, None)


@pytest.mark.parametrize("name", ["without_batches", "without_banner"])
def test_a_retry_after_a_kill_in_the_silent_simulation_is_run_2(world: World, name: str) -> None:
    world.row()
    world.look()
    data = b"".join(lines(name))
    world.write(data[: data.index(b"Starting to download")] + b"Killed\n")
    world.look()
    assert world.view().reason == "killed"
    world.write(data)
    world.look()
    assert (world.state, world.view().run_number) == (BeamState.SUCCEEDED, 2)


def test_the_dose_facts_of_a_production_log_survive_a_restart(world: World) -> None:
    world.row()
    data = b"".join(lines("with_batches"))
    world.write(data[: data.index(b"  Output:")])
    world.look()
    before = world.view()
    world.restart()
    view = world.view()
    assert view.dose_path == DOSE.format(beam=1)
    assert (view.dose_dimensions, view.dose_max_gy, view.doses_written) == ("400x400x1", 1.56002e-05, 1)
    assert view.engine_times == before.engine_times
    assert view.engine_times.simulation_seconds == pytest.approx(8.075)


def test_a_state_file_of_an_exporter_that_knew_no_doses_is_read(world: World) -> None:
    world.row()
    world.write(b"".join(lines("with_batches")[:-3]))
    world.look()
    stored = world.saved()
    older = [beam.replace(b'"dose":', b'"_":').replace(b'"engine_times":', b'"__":') for beam in stored.beams]
    [beam] = RestoredState.decode(replace(stored, beams=older)).beams.values()
    run = beam.run
    assert (run.dose.path, run.engine_times.total_seconds) == (None, None)


def test_verify_understands_a_production_log_that_still_grows(tmp_path: Path) -> None:
    for number, _ in enumerate(lines("without_banner"), start=1):
        log = tmp_path / "beginning.log"
        log.write_bytes(b"".join(lines("without_banner")[:number]))
        said = text(verify(log, SitePatterns()))
        assert "none is known" not in said, number


def test_silence_after_the_last_batch_is_saving_and_no_stall(world: World) -> None:
    """The rules here: a batch takes 2 s, a stall is 10 s of silence, a first batch has 60 s."""
    data = b"".join(lines("with_batches"))
    world.row()
    world.look()
    last = data.index(b"Starting to download")
    for part in data[:last].splitlines(keepends=True):
        world.write(part)
        world.look(0.4)
    assert (world.state, world.view().phase) == (BeamState.RUNNING, "saving")
    for _ in range(50):
        world.look(1)
        assert world.state == BeamState.RUNNING
    for _ in range(15):
        world.look(1)
    assert world.state == BeamState.STALLED, "not for ever"
    world.write(data[last:])
    world.look()
    assert world.state == BeamState.SUCCEEDED


def test_silence_in_a_batch_is_a_stall(world: World) -> None:
    data = b"".join(lines("with_batches"))
    world.row()
    world.look()
    for part in data[: data.index(b"Transporting particles", data.index(b"(3 of 3"))].splitlines(keepends=True):
        world.write(part)
        world.look(0.4)
    for _ in range(12):
        world.look(1)
    assert world.state == BeamState.STALLED
    assert world.view(BEAM).phase == "simulating"


HARMLESS = """\
GPU ID: 3
Inserted seed: 17 (random seed)
Gantry number : 2
Patient directory: /data/1
Output directory : /data/out
RT Plan header information from
Machine name: G2 (Same as selected gantry number)
RT Plan type: RT ION
Beam ID: 12
Number of range shifter : 1
Number of blocks : 1
RT Plan Beam #2 - Field Name: '2G010:TX'
Available log folders:
Extracted beam pattern from RT Plan: '1G000' (from '1G000:TX')
Creating child in world geometry:
=== Filtering beams in RT Plan (excluding SETUP) ===
Beam[0] Name: 'SETUP' -> EXCLUDED
=== Total treatment beams: 4 ===
Score_variance
save_to_npz
scan start
scan done
17
x0 1 y0 2 z0 3
Warning: key out of bounds..
Warning: save_to_dcm length mismatch..
Warning: In ./Source/x.cxx, line 2589, function static gdcm::X gdcm::ImageHelper::Get(const gdcm::File&)
No PhotometricInterpretation found, default to MONOCHROME2
"""


@pytest.mark.parametrize("line", HARMLESS.splitlines())
@pytest.mark.parametrize("place", ["first", "in the middle", "before the end"])
def test_a_harmless_line_changes_nothing_at_any_place(world: World, line: str, place: str) -> None:
    known = lines("with_batches")
    at = {"first": 0, "in the middle": len(known) // 2, "before the end": len(known) - 1}[place]
    world.row()
    world.look()
    for each in [*known[:at], line.encode() + b"\n", *known[at:]]:
        world.write(each)
        world.look(0.2)
    view = world.view()
    assert (view.state, view.batches_completed, view.batches_total) == (BeamState.SUCCEEDED, 3, 3)
    assert view.dose_path == DOSE.format(beam=1)
