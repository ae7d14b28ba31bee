"""A clock that is set, and a machine that sleeps, while beams are followed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.rules import StoreRules
from exporter.beams.saved import encode_beam
from exporter.beams.snapshot import BeamKey, BeamState
from exporter.beams.store import BeamStore
from exporter.config import settings_from
from exporter.database.beams_table import BeamsTable
from exporter.database.discovery import DatabaseDiscovery
from exporter.persistence.writer import StateWriter
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.process.clock import Clock
from exporter.runtime.database_access import DatabaseAccess
from exporter.runtime.discovery_loop import DirectoryDiscoveryLoop, TableDiscoveryLoop
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogStat
from tests.support import communicator_db as db
from tests.support.world import BEAM, FragileSource, World, after, captured, quick, upto

HOUR = 3600.0
SECOND_BATCH = b"(2 of 18 batches)"


class Times:
    """Both clocks of a machine, and what was said of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.uptime = 1000.0
        self.said: list[float] = []
        self.clock = self.world.clock = self.process()

    def process(self) -> Clock:
        """A process begins."""
        return Clock(
            on_event=lambda _, seconds: self.said.append(seconds),
            wall=lambda: self.world.at,
            uptime=lambda: self.uptime,
        )

    def passes(self, seconds: float) -> None:
        """Time passes and the clock is read every second."""
        for _ in range(int(seconds)):
            self.world.at += 1.0
            self.uptime += 1.0
            self.clock.now()

    def set(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.world.at += seconds
        self.clock.now()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick())


@pytest.fixture
def times(world: World) -> Times:
    return Times(world)


def running(world: World, times: Times) -> None:
    """A beam with one finished batch of four seconds."""
    world.row()
    world.look(0)
    world.write(upto("v2_b18", b"(1 of 18 batches)"))
    times.passes(1)
    world.look(0)
    times.passes(4)
    world.write(after("v2_b18", b"(1 of 18 batches)").partition(SECOND_BATCH)[0])
    world.look(0)
    assert world.state == "running"
    assert world.view().batches_completed == 1


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_causes_no_stall_and_hides_none(world: World, times: Times, step: float) -> None:
    running(world, times)
    before = world.view()
    times.passes(5)
    times.set(step)
    world.look(0)
    view = world.view()
    assert view.state is BeamState.RUNNING
    assert view.last_progress_at == pytest.approx((before.last_progress_at or 0) + step)
    assert view.started_at == pytest.approx((before.started_at or 0) + step)
    assert times.said == [step]
    assert view.stall_threshold_seconds <= 15
    times.passes(11)
    world.look(0)
    assert world.state == "stalled"


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_changes_nothing_in_the_store_but_the_times_that_are_shown(
    world: World, times: Times, step: float
) -> None:
    running(world, times)
    world.store.advance(world.now())
    before, known = world.view(), [encode_beam(beam) for beam in world.store._data.beams.values()]
    times.set(step)
    world.store.advance(world.now())
    after = world.view()
    assert [encode_beam(beam) for beam in world.store._data.beams.values()] == known
    for name in ("state_since", "started_at", "last_progress_at", "log_modified_at"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) + step)
    assert (after.estimated_ratio, after.remaining_seconds) == (before.estimated_ratio, before.remaining_seconds)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_batch_written_before_the_clock_was_set_and_read_afterwards_has_its_true_duration(
    world: World, times: Times, step: float
) -> None:
    running(world, times)
    times.passes(1)
    world.write(after("v2_b18", b"(1 of 18 batches)").partition(b"(3 of 18 batches)")[0][-300:])
    times.set(step)
    world.look(0)
    assert world.state == "running"
    duration = world.view().batch_duration_seconds
    assert duration is not None
    assert 0 < duration < 10


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_run_that_ends_after_the_clock_was_set_is_counted_once(world: World, times: Times, step: float) -> None:
    running(world, times)
    times.set(step)
    world.write(upto("v2_b18", b"Time taken").partition(SECOND_BATCH)[2])
    world.look(0)
    times.passes(3)
    world.look(0)
    assert world.runs == {("succeeded", ""): 1}
    times.set(-step)
    times.passes(3)
    world.look(0)
    assert world.runs == {("succeeded", ""): 1}
    [ended] = world.snapshot().ended
    assert ended.ended_at == pytest.approx(world.at, abs=10)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_run_whose_end_is_read_before_and_applied_after_setting_the_clock_is_counted(
    world: World, times: Times, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(world, times)
    world.write(upto("v2_b18", b"Time taken").partition(SECOND_BATCH)[2])
    apply = world.store.apply

    def set_first(*what: Any, **how: Any) -> None:
        times.set(step)
        apply(*what, **how)

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "apply", set_first)
        world.look(0)
    assert world.state == "succeeded"
    assert world.view().ended_at == pytest.approx(world.at, abs=10)
    times.passes(3)
    world.look(0)
    assert world.runs == {("succeeded", ""): 1}


def test_a_row_reset_after_the_clock_was_set_back_begins_a_new_run(world: World, times: Times) -> None:
    running(world, times)
    times.set(-HOUR)
    times.passes(20)
    world.row("pending")
    world.look(0)
    assert (world.state, world.view().run_number) == ("waiting", 2)


def test_a_retry_just_before_the_clock_was_set_back_is_one_new_run(world: World, times: Times) -> None:
    running(world, times)
    world.write(upto("v2_b18", b"Time taken").partition(SECOND_BATCH)[2])
    world.look(0)
    world.row("completed", 100.0)
    world.look(0)
    times.passes(10)
    world.look(0)
    world.row()
    world.write(upto("v2_b18", b"Creating world geometry complete!"), anew=True)
    times.set(-HOUR)
    world.poller.poll()
    world.look(0)
    assert (world.state, world.view().run_number) == ("starting", 2)


def test_a_row_that_failed_just_before_the_clock_was_set_back_fails_the_beam_now(world: World, times: Times) -> None:
    running(world, times)
    world.row("failed")
    times.set(-HOUR)
    times.passes(20)
    world.look(0)
    times.passes(20)
    world.look(0)
    assert (world.state, world.runs) == ("failed", {("failed", "status"): 1})


def test_time_in_which_the_process_was_stopped_causes_no_stall(world: World, times: Times) -> None:
    running(world, times)
    started_at = world.view().started_at
    times.uptime += 600
    world.at += 600
    times.clock.now()
    world.look(0)
    assert world.state == "running"
    assert times.said == [600.0]
    assert world.view().started_at == started_at, "that was when it was"
    times.passes(16)
    world.look(0)
    assert world.state == "stalled"


def test_a_suspended_machine_whose_clock_was_set_meanwhile_causes_no_stall(world: World, times: Times) -> None:
    running(world, times)
    ended_before = world.snapshot().ended
    times.uptime += 600
    world.at += 600 + HOUR
    times.clock.now()
    assert times.said == [HOUR, 600.0]
    world.look(0)
    assert world.state == "running"
    assert world.snapshot().ended == ended_before


def test_setting_the_clock_between_two_processes_does_not_change_how_long_a_log_was_silent(
    tmp_path: Path, world: World, times: Times
) -> None:
    running(world, times)
    path = tmp_path / "state.db"
    first = StateWriter(path, 10.0, 400, world.store, times.clock)
    first.start()
    first.stop()
    times.uptime += 3
    world.at += 3 + HOUR
    clock = times.process()
    store = BeamStore(StoreRules(quick().stall), clock.now(), lambda: clock.timeline)
    second = StateWriter(path, 10.0, 400, store, clock)
    second.resume({"local"})
    second.close()
    [view] = store.snapshot(clock.now()).beams
    assert view.state is BeamState.RUNNING
    assert world.at - (view.last_progress_at or 0) == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_run_between_two_processes_is_counted_although_the_clock_was_set_then(
    world: World, times: Times, step: float
) -> None:
    running(world, times)
    stored, last = world.saved(), times.clock.reading()
    unseen = BeamKey("70010001", "unseen")
    times.uptime += 30
    world.at += 20
    world.row(key=unseen)
    world.write(captured("v2_b18"), unseen)
    world.at += 10 + step
    world.clock = times.process()
    world.clock.resume(last)
    world.restart(stored)
    world.look(0)
    assert world.view(unseen).state is BeamState.SUCCEEDED
    assert world.runs == {("succeeded", ""): 1}
    ended_at = world.view(unseen).ended_at
    assert ended_at is not None
    assert world.at - ended_at == pytest.approx(10, abs=1), "it is shown by the clock as it is set now"


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_time_of_the_last_poll_is_shown_by_the_clock_as_it_is_set_now(
    world: World, times: Times, step: float
) -> None:
    running(world, times)
    times.passes(2)
    times.set(step)
    [source] = world.snapshot().sources
    assert source.last_poll_at == pytest.approx(world.at - 2)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_during_a_poll_does_not_change_the_duration_of_the_poll(
    world: World, times: Times, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(world, times)
    stat = world.source.stat

    def set_first(*what: Any, **how: Any) -> Any:
        times.set(step)
        return stat(*what, **how)

    with monkeypatch.context() as patched:
        patched.setattr(world.source, "stat", set_first)
        world.poller.poll()
    [source] = world.snapshot().sources
    assert source.last_poll_at == pytest.approx(world.at)
    assert source.poll_seconds.total == pytest.approx(0)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_source_that_fails_while_the_clock_is_set_is_down_since_now(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FragileSource("local")
    world = World(tmp_path, quick(), source=source)
    times = Times(world)
    running(world, times)
    publish = world.store.update_source

    def set_first(*what: Any, **how: Any) -> None:
        times.set(step)
        publish(*what, **how)

    source.down = True
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "update_source", set_first)
        world.poller.poll()
    assert world.view().state is BeamState.UNREACHABLE
    assert world.view().state_since == pytest.approx(world.at)
    [view] = world.snapshot().sources
    assert view.last_poll_at == pytest.approx(world.at)


def test_a_row_read_just_before_the_clock_was_set_back_fails_the_beam_without_delay(
    world: World, times: Times, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(world, times)
    path = db.make(tmp_path / "mqi.db")
    db.add(path, BEAM.beam_id, "failed")
    db.execute(
        path, "UPDATE beams SET parent_case_id = ?, updated_at = datetime(?, 'unixepoch')", BEAM.case_id, world.at
    )
    settings = settings_from(f"base_directory: {tmp_path}\ndatabase: {{path: {path}}}\n", "exporter.yaml")
    assert settings.database is not None
    access = DatabaseAccess(settings, settings.database, world.store)
    loop = TableDiscoveryLoop(settings, access, world.store, PlainIdentifiers(), times.clock.now)
    rows = BeamsTable.rows

    def set_after(*what: Any) -> Any:
        found = rows(*what)
        times.set(-HOUR)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(BeamsTable, "rows", set_after)
        loop.run_once()
    times.passes(3)
    world.poller.poll()
    times.passes(1)
    assert (world.state, world.view().reason) == ("failed", "status")


def discovery_loop(world: World, times: Times, source: LocalLogSource) -> DirectoryDiscoveryLoop:
    settings = settings_from(
        f"sources: [{{name: local, kind: local, log_path: ['{world.folder}/{{case_id}}_{{beam_id}}.log']}}]\n"
        "discovery: {kind: directory, interval_seconds: 2}\n",
        "exporter.yaml",
    )
    templates = settings.templates(settings.sources[0])
    return DirectoryDiscoveryLoop(settings, source, templates, world.store, times.clock.now)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_beam_found_by_name_while_the_clock_is_set_waits_since_now(world: World, times: Times, step: float) -> None:
    class SetAfter(LocalLogSource):
        def listing(self, folder: str) -> Mapping[str, LogStat]:
            found = super().listing(folder)
            times.set(step)
            return found

    world.write(captured("v2_b18"), BeamKey("c", "c_b1"))
    discovery_loop(world, times, SetAfter("local")).run_once()
    [view] = world.snapshot().beams
    assert (view.key.beam_id, view.state) == ("b1", BeamState.WAITING)
    assert view.state_since == pytest.approx(world.at)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_setting_the_clock_does_not_change_how_often_folders_are_listed(
    world: World, times: Times, step: float
) -> None:
    class Counting(LocalLogSource):
        listings = 0

        def listing(self, folder: str) -> Mapping[str, LogStat]:
            self.listings += 1
            return super().listing(folder)

    source = Counting("local")
    loop = discovery_loop(world, times, source)
    loop.run_once()
    times.passes(1)
    times.set(step)
    loop.run_once()
    assert source.listings == 1
    times.passes(1)
    loop.run_once()
    assert source.listings == 2


def test_discovery_finds_a_row_that_was_written_after_the_clock_was_set_back(tmp_path: Path) -> None:
    path = db.make(tmp_path / "mqi.db")
    table = BeamsTable(path)
    discovery = DatabaseDiscovery(table, retention_seconds=HOUR)
    discovery.find_beams(2 * HOUR, ())
    db.add(path, "b1", "failed")
    db.execute(path, "UPDATE beams SET updated_at = '1970-01-01 01:00:01'")
    [row] = discovery.find_beams(HOUR + 2, ()).rows
    assert row.key.beam_id == "b1"
    table.close()


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_log_first_read_after_the_clock_was_set_belongs_to_the_current_run(
    world: World, times: Times, step: float
) -> None:
    world.row()
    world.look(0)
    times.passes(5)
    if step < 0:
        times.set(step)
    world.write(captured("v2_b18"))
    times.passes(5)
    times.set(step if step > 0 else 2 * HOUR)
    world.look(0)
    assert world.state == "succeeded"
    times.passes(3)
    world.look(0)
    assert world.runs == {("succeeded", ""): 1}, "it ended while the exporter ran"


def test_a_log_written_before_the_clock_was_set_belongs_to_the_run_of_a_row_written_afterwards(
    world: World, times: Times
) -> None:
    world.row("pending")
    world.look(0)
    times.passes(5)
    world.write(captured("v2_b18"))
    times.passes(5)
    times.set(HOUR)
    world.row()
    world.look(0)
    assert world.state == "succeeded"


def test_a_row_dated_in_the_future_does_not_make_a_new_log_one_of_the_previous_run(world: World, times: Times) -> None:
    world.row()
    times.set(-HOUR)
    times.passes(5)
    world.write(captured("v2_b18"))
    world.look(0)
    assert world.state == "succeeded"


def test_a_log_older_than_its_row_belongs_to_the_previous_run_when_both_are_found_after_the_clock_was_set(
    world: World, times: Times
) -> None:
    world.write(captured("v2_b18"))
    times.passes(5)
    times.set(HOUR)
    world.row()
    world.look(0)
    assert world.state == "waiting"


def test_setting_the_clock_forwards_does_not_shorten_the_retention_of_a_beam(world: World, times: Times) -> None:
    world.row()
    world.look(0)
    world.write(captured("v2_b18"))
    world.look(0)
    times.passes(50)
    times.set(HOUR)
    world.look(0)
    assert world.state == "succeeded"
    times.passes(51)
    world.look(0)
    assert world.snapshot().beams == (), "that is how long it stays"
