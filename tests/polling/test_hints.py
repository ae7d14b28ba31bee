"""Which logs are polled when: active and quiet ones, hints that bring a poll forward, and that no change is missed."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.config import Settings
from exporter.database.discovery import DirectoryDiscovery
from exporter.logs.parser import SitePatterns
from exporter.polling import schedule
from exporter.polling.path_check import PathCheck
from exporter.polling.poller import SourcePoller
from exporter.polling.schedule import PollScope
from exporter.polling.source_loop import SourceLoop
from exporter.polling.targets import Target
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.runtime.discovery_loop import DirectoryDiscoveryLoop
from exporter.runtime.pipeline import Pipeline
from exporter.sources.inotify import InotifyWatcher
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import NO_KNOWN_STATS, LogProblem, LogStat, ReadRequest, SourceUnavailable
from tests.support.process import wait_for

INTERVAL = 0.5
POLLS_TO_QUIET = round(schedule.ACTIVE_SECONDS / INTERVAL) + 2
QUIET_POLLS = round(schedule.QUIET_SECONDS / INTERVAL)
"""Polls at the interval until each quiet log was polled once."""


class CountingSource(LocalLogSource):
    """The local file system; counts the paths that are asked for, which is what idle logs cost."""

    def __init__(self) -> None:
        super().__init__("local")
        self.asked: list[str] = []
        self.down = False

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        if self.down:
            raise SourceUnavailable("connection_lost", "gone")
        self.asked += [*paths, *known]
        return super().stat(paths, known)

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        if self.down:
            raise SourceUnavailable("connection_lost", "gone")
        return super().read(requests)


class SilentWatcher(InotifyWatcher):
    """A kernel that never gives a hint."""

    def read_hints(self) -> set[str]:
        super().read_hints()
        return set()


class PolledFolder:
    """A source of some beams whose logs are in one folder, under clocks that stand still between polls."""

    def __init__(self, folder: Path, count: int, watcher: InotifyWatcher | None) -> None:
        self.folder, self.at = folder, time.time()
        self.store = BeamStore(StoreRules(), self.at)
        self.source = CountingSource()
        keys = [BeamKey("c", f"b{number}") for number in range(count)]
        self.store.update_rows([BeamRow(key, self.at, status="x") for key in keys], (), self.at)
        self.poller = SourcePoller(
            self.source,
            [LogPathTemplate(f"{folder}/{{beam_id}}.log")],
            self.store,
            site=SitePatterns(),
            clock=self.clock,
            watcher=watcher,
            interval_seconds=INTERVAL,
        )

    def clock(self) -> float:
        self.at += 0.001
        return self.at

    def log(self, number: int) -> Path:
        return self.folder / f"b{number}.log"

    def start_batch(self, number: int, batch: int) -> None:
        with self.log(number).open("ab") as file:
            file.write(b"Generating particles for (%d of 1000 batches) in CPU ..\n" % batch)

    def batches(self) -> dict[str, int]:
        return {view.key.beam_id: view.batch_current for view in self.store.snapshot(self.at).beams}

    def poll(self, scope: PollScope = PollScope.DUE) -> list[str]:
        """Let one interval pass, unless only hinted logs are polled; return the paths that were asked for."""
        self.source.asked = []
        if scope is not PollScope.HINTED:
            self.at += INTERVAL
        while self.poller.poll(scope):
            pass
        return self.source.asked


@pytest.fixture
def watcher() -> Iterator[InotifyWatcher]:
    made = InotifyWatcher()
    yield made
    made.close()


def quiet_folder(folder: Path, count: int, watcher: InotifyWatcher | None) -> PolledFolder:
    """A folder whose logs have all been read and have become quiet."""
    world = PolledFolder(folder, count, watcher)
    for number in range(count):
        world.start_batch(number, 1)
    for _ in range(POLLS_TO_QUIET):
        world.poll()
    assert set(world.batches().values()) == {1}
    return world


@pytest.mark.parametrize("hints", [False, True])
def test_each_quiet_log_is_polled_once_in_five_seconds_in_slices(
    tmp_path: Path, watcher: InotifyWatcher, hints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_LOGS_PER_SLICE", 10)
    world = quiet_folder(tmp_path, 50, watcher if hints else None)
    polls = [world.poll() for _ in range(QUIET_POLLS)]
    assert [len(asked) for asked in polls if asked] == [10] * 5
    assert sorted(path for asked in polls for path in asked) == sorted(str(world.log(each)) for each in range(50))


def test_a_few_quiet_logs_are_polled_together_so_that_the_thread_sleeps_between(tmp_path: Path) -> None:
    world = quiet_folder(tmp_path, 50, None)
    polls = [world.poll() for _ in range(QUIET_POLLS)]
    assert sorted(map(len, polls)) == [0] * (QUIET_POLLS - 1) + [50]
    assert world.poller.wait_seconds() > 0


def test_a_log_that_changed_is_polled_at_every_interval_until_it_is_quiet_again(tmp_path: Path) -> None:
    world = quiet_folder(tmp_path, 20, None)
    world.start_batch(7, 2)
    while world.batches()["b7"] == 1:
        world.poll()
    active = round(schedule.ACTIVE_SECONDS / INTERVAL)
    polls = [world.poll() for _ in range(active + QUIET_POLLS)]
    asked = [str(world.log(7)) in each for each in polls]
    assert all(asked[: active - 1])
    assert asked[active:].count(True) == 1


def test_a_new_beam_is_polled_at_once(tmp_path: Path) -> None:
    world = quiet_folder(tmp_path, 3, None)
    world.start_batch(3, 5)
    world.store.update_rows([BeamRow(BeamKey("c", "b3"), world.at, status="x")], (), world.at)
    assert world.poller.wait_seconds() == 0.0
    world.poll()
    assert world.batches()["b3"] == 5


def test_after_a_failed_poll_all_that_was_due_is_polled_at_the_next_interval(tmp_path: Path) -> None:
    world = quiet_folder(tmp_path, 20, None)
    while world.poller.wait_seconds() > INTERVAL:
        world.poll()
    world.source.down = True
    for _ in range(3):
        world.poll()
        assert world.poller.wait_seconds() <= INTERVAL
    world.source.down = False
    assert len(world.poll()) == 20


def test_missed_periods_leave_the_slices_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_LOGS_PER_SLICE", 10)
    world = quiet_folder(tmp_path, 50, None)
    world.at += 1000.25
    assert len(world.poll()) == 50
    world.poll(PollScope.ALL)
    assert max(len(world.poll()) for _ in range(QUIET_POLLS)) == 10


@pytest.mark.parametrize("hints", [False, True])
def test_beams_that_left_are_freed_without_the_garbage_collector(
    tmp_path: Path, watcher: InotifyWatcher, hints: bool
) -> None:
    world = quiet_folder(tmp_path, 3, watcher if hints else None)

    def held() -> int:
        return sum(isinstance(each, Target) for each in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        for number in range(3, 20):
            key = BeamKey("c", f"b{number}")
            world.store.update_rows([BeamRow(key, world.at, status="x")], (), world.at)
            world.poll()
            world.store.update_rows([], [key], world.at)
            world.at += 120
            world.store.advance(world.at)
            world.poll()
        assert len(world.batches()) == 3
        assert held() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("hints", [False, True])
def test_a_log_whose_stat_is_again_as_before_it_grew_is_read(
    tmp_path: Path, watcher: InotifyWatcher, hints: bool
) -> None:
    world = quiet_folder(tmp_path, 3, watcher if hints else None)
    scope = PollScope.HINTED if hints else PollScope.ALL
    before = world.log(1).stat()
    world.start_batch(1, 2)
    world.poll(scope)
    assert world.batches()["b1"] == 2
    world.log(1).write_bytes(b"Generating particles for (3 of 1000 batches) in CPU ..\n")
    os.utime(world.log(1), ns=(before.st_atime_ns, before.st_mtime_ns))
    now = world.log(1).stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    world.poll(scope)
    assert world.batches()["b1"] == 3


def test_a_beam_whose_row_names_another_log_is_not_polled_at_the_old_path(
    tmp_path: Path, watcher: InotifyWatcher
) -> None:
    world = quiet_folder(tmp_path, 2, watcher)
    world.start_batch(2, 1)
    key, other = BeamKey("c", "b2"), tmp_path / "other.log"
    world.store.update_rows([BeamRow(key, world.at, status="x")], (), world.at)
    world.poll()
    assert world.batches()["b2"] == 1
    other.write_bytes(b"Generating particles for (7 of 1000 batches) in CPU ..\n")
    os.utime(other, (world.at + 60, world.at + 60))
    world.store.update_rows([BeamRow(key, world.at, status="x", log_path=str(other))], (), world.at)
    for _ in range(2):
        assert str(world.log(2)) not in world.poll()
    assert world.batches()["b2"] == 7


def test_a_hinted_poll_asks_only_for_the_logs_that_grew(tmp_path: Path, watcher: InotifyWatcher) -> None:
    world = quiet_folder(tmp_path, 50, watcher)
    assert world.poll(PollScope.HINTED) == []
    world.start_batch(7, 2)
    world.start_batch(8, 2)
    assert sorted(world.poll(PollScope.HINTED)) == [str(world.log(7)), str(world.log(8))]
    assert {beam for beam, batch in world.batches().items() if batch == 2} == {"b7", "b8"}


def test_a_log_that_appears_gives_a_hint(tmp_path: Path, watcher: InotifyWatcher) -> None:
    world = quiet_folder(tmp_path, 3, watcher)
    world.store.update_rows([BeamRow(BeamKey("c", "b3"), world.at, status="x")], (), world.at)
    world.poll()
    world.start_batch(3, 1)
    world.poll(PollScope.HINTED)
    assert world.batches()["b3"] == 1


def test_a_log_in_the_place_of_another_gives_hints_from_then_on(tmp_path: Path, watcher: InotifyWatcher) -> None:
    world = quiet_folder(tmp_path, 3, watcher)
    # The inode of the old one is often used again, so nothing but its name tells.
    content = world.log(1).read_bytes()
    world.log(1).unlink()
    world.log(1).write_bytes(content)
    world.poll(PollScope.HINTED)
    world.start_batch(1, 2)
    assert world.poll(PollScope.HINTED) == [str(world.log(1))]
    assert world.batches()["b1"] == 2


def test_a_log_behind_a_link_gives_hints(tmp_path: Path, watcher: InotifyWatcher) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "b0.log").symlink_to(elsewhere / "real.log")
    world = quiet_folder(tmp_path, 3, watcher)
    with (elsewhere / "real.log").open("ab") as file:
        file.write(b"Generating particles for (2 of 1000 batches) in CPU ..\n")
    world.poll(PollScope.HINTED)
    assert world.batches()["b0"] == 2


@pytest.mark.parametrize("watched", [False, True])
def test_without_hints_every_change_is_seen_within_five_seconds(tmp_path: Path, watched: bool) -> None:
    silent = SilentWatcher() if watched else None
    world = quiet_folder(tmp_path, 20, silent)
    for number in range(0, 20, 2):
        world.start_batch(number, 2)
    for number in range(1, 20, 2):
        world.log(number).write_bytes(b"Generating particles for (2 of 1000 batches) in CPU ..\n")
    for _ in range(QUIET_POLLS):
        world.poll()
    assert set(world.batches().values()) == {2}
    if silent is not None:
        silent.close()


def test_a_big_log_is_read_to_its_end_by_hinted_polls(tmp_path: Path, watcher: InotifyWatcher) -> None:
    world = quiet_folder(tmp_path, 2, watcher)
    with world.log(1).open("ab") as file:
        file.write(b"noise\n" * 200_000 + b"Generating particles for (2 of 1000 batches) in CPU ..\n")
    world.poll(PollScope.HINTED)
    assert world.batches()["b1"] == 2


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["grow", "new", "delete", "hinted", "due"])), max_size=40
    )
)
def test_whatever_happens_to_logs_adaptive_polling_and_polling_everything_agree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    """A model: hinted and due polls on one side, a poll of everything after each step on the other."""
    folder = tmp_path_factory.mktemp("logs")
    made = InotifyWatcher()
    adaptive, everything = PolledFolder(folder, 6, made), PolledFolder(folder, 6, None)
    adaptive.poll()
    for batch, (number, step) in enumerate(steps, start=1):
        if step == "grow":
            adaptive.start_batch(number, batch)
        elif step == "new":
            adaptive.log(number).write_bytes(b"Generating particles for (%d of 999 batches) in CPU ..\n" % batch)
        elif step == "delete":
            adaptive.log(number).unlink(missing_ok=True)
        everything.poll(PollScope.ALL)
        adaptive.poll(PollScope.DUE if step == "due" else PollScope.HINTED)
    for _ in range(QUIET_POLLS):
        adaptive.poll()
    assert adaptive.batches() == everything.batches()
    made.close()


def test_path_checks_say_what_the_last_poll_found_at_each_path(tmp_path: Path) -> None:
    world = PolledFolder(tmp_path, 4, None)
    key = [BeamKey("c", f"b{number}") for number in range(5)]
    assert world.poller.path_checks(key[0]) == ()
    world.start_batch(0, 1)
    world.log(1).mkdir()
    world.poll()

    def check(number: int, found: str, *, followed: bool = False) -> tuple[PathCheck, ...]:
        return (PathCheck("local", str(world.log(number)), found, followed),)

    assert world.poller.path_checks(key[0]) == check(0, "log", followed=True)
    assert world.poller.path_checks(key[1]) == check(1, "not_a_file")
    assert world.poller.path_checks(key[2]) == check(2, "missing")
    assert world.poller.path_checks(key[4]) == ()


def test_path_checks_name_the_fields_that_a_row_lacks(tmp_path: Path) -> None:
    at = time.time()
    store = BeamStore(StoreRules(), at)
    store.update_rows([BeamRow(BeamKey("c", "b"), at, status="x")], (), at)
    templates = [LogPathTemplate(f"{tmp_path}/{{hpc_job_id}}.log"), LogPathTemplate(f"{tmp_path}/{{beam_id}}.log")]
    poller = SourcePoller(CountingSource(), templates, store, site=SitePatterns(), clock=lambda: at)
    poller.poll()
    assert poller.path_checks(BeamKey("c", "b")) == (
        PathCheck("local", f"{tmp_path}/b.log", "missing"),
        PathCheck("local", "", "no_path", missing_fields=("hpc_job_id",)),
    )


def test_a_write_is_seen_long_before_the_next_poll_is_due(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "sources": [{"name": "local", "kind": "local", "log_path": [f"{tmp_path}/{{case_id}}_{{beam_id}}.log"]}],
            "discovery": {"kind": "directory"},
            "progress_tracking": {"monitoring": {"poll_interval_seconds": 3600}},
        }
    )
    log = tmp_path / "c_b0.log"
    log.write_bytes(b"Generating particles for (1 of 1000 batches) in CPU ..\n")
    at = 1_800_000_000.0
    os.utime(log, (at, at))
    store = BeamStore(StoreRules(), at)
    pipeline = Pipeline(settings, store, PlainIdentifiers(), lambda: at)

    def current() -> int:
        return max((view.batch_current for view in store.snapshot(at).beams), default=0)

    pipeline.start()
    try:
        wait_for(lambda: current() == 1, "the first poll")
        # Each needs a hint: the next poll would come in an hour.
        for batch in range(2, 6):
            with log.open("ab") as file:
                file.write(b"Generating particles for (%d of 1000 batches) in CPU ..\n" % batch)
            wait_for(lambda batch=batch: current() == batch, f"batch {batch}")  # type: ignore[misc]
    finally:
        pipeline.stop()
        pipeline.close()


class CountingListings(CountingSource):
    """Counts listings, too."""

    def __init__(self) -> None:
        super().__init__()
        self.listings = 0

    def listing(self, folder: str) -> Mapping[str, LogStat]:
        self.listings += 1
        return super().listing(folder)


def test_a_folder_whose_names_stay_is_listed_rarely_and_a_new_log_at_once(tmp_path: Path) -> None:
    at = [time.time()]
    configured = Settings.model_validate(
        {
            "sources": [{"name": "local", "kind": "local", "log_path": [f"{tmp_path}/{{case_id}}_{{beam_id}}.log"]}],
            "discovery": {"kind": "directory", "interval_seconds": 2},
        }
    )
    (tmp_path / "c_b0.log").touch()
    store = BeamStore(StoreRules(), at[0])
    source = CountingListings()
    templates = configured.templates(configured.sources[0])
    loop = DirectoryDiscoveryLoop(configured, source, templates, store, lambda: at[0])

    def discover(times: int) -> int:
        before = source.listings
        for _ in range(times):
            at[0] += 2.5
            loop.run_once()
        return source.listings - before

    discover(5)
    assert {view.key.beam_id for view in store.snapshot(at[0]).beams} == {"b0"}
    assert discover(120) == 2
    (tmp_path / "c_b1.log").touch()
    assert discover(1) == 1
    assert {view.key.beam_id for view in store.snapshot(at[0]).beams} == {"b0", "b1"}
    # Within the resolution of time stamps another name may have come: the next runs list, too.
    assert discover(2) == 2
    assert 0 < loop.run_once() <= 2


@pytest.mark.parametrize("polling_only", [False, True])
def test_a_poll_that_is_asked_for_comes_long_before_its_time(
    tmp_path: Path, polling_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if polling_only:
        monkeypatch.setattr("exporter.sources.inotify.open_watcher", lambda: None)
    settings = Settings.model_validate(
        {
            "sources": [{"name": "local", "kind": "local", "log_path": [f"{tmp_path}/{{case_id}}_{{beam_id}}.log"]}],
            "progress_tracking": {"monitoring": {"poll_interval_seconds": 60.0}},
            "discovery": {"kind": "directory"},
        }
    )
    store = BeamStore(StoreRules(), time.time())
    pipeline = Pipeline(settings, store, PlainIdentifiers(), time.time)
    pipeline.start()
    try:
        wait_for(lambda: pipeline.unready() is None, "the first polls")
        polled_at = store.snapshot(time.time()).sources[0].last_poll_at

        pipeline._poll_all()

        wait_for(lambda: store.snapshot(time.time()).sources[0].last_poll_at != polled_at, "another poll", 20.0)
    finally:
        pipeline.stop()
        pipeline.close()


def test_hinted_logs_are_polled_while_thousands_of_names_are_examined(tmp_path: Path, watcher: InotifyWatcher) -> None:
    world = quiet_folder(tmp_path, 3, watcher)
    loop = SourceLoop(world.poller, watcher, INTERVAL)
    names = {f"c_b{number}.log": LogStat(0, world.at) for number in range(1200)}
    shown: list[int] = []

    def between() -> None:
        world.start_batch(1, 2 + len(shown))
        loop.poll_hinted()
        shown.append(world.batches()["b1"])

    found = DirectoryDiscovery().find_beams(world.at, {"/logs": names}, between)

    assert shown == [2, 3, 4]
    assert len(found.rows) == 1200


def test_nothing_is_polled_between_names_without_a_hint(tmp_path: Path, watcher: InotifyWatcher) -> None:
    world = quiet_folder(tmp_path, 3, watcher)
    polls = world.store.snapshot(world.at).sources[0].poll_seconds.count

    SourceLoop(world.poller, watcher, INTERVAL).poll_hinted()
    SourceLoop(world.poller, None, INTERVAL).poll_hinted()

    assert world.store.snapshot(world.at).sources[0].poll_seconds.count == polls


def test_the_source_thread_sleeps_until_something_is_due(tmp_path: Path) -> None:
    world = quiet_folder(tmp_path, 3, None)
    loop = SourceLoop(world.poller, None, INTERVAL, lambda _: 2.0)
    world.at += schedule.QUIET_SECONDS
    assert loop.run_once() == 2.0, "discovery is due first"
    assert loop.run_once() == 2.0
    assert SourceLoop(world.poller, None, INTERVAL).run_once() > 2.0
