"""Looks that the kernel's announcements bring forward: what they save, and that nothing is lost where they fail."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.config import Settings
from exporter.database.discovery import DirectoryDiscovery
from exporter.logs.parser import SitePatterns
from exporter.polling.poller import SourcePoller
from exporter.polling.schedule import Candidates
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.runtime.discovery_loop import DirectoryDiscoveryLoop
from exporter.runtime.pipeline import Pipeline, _Waits
from exporter.sources.inotify import FileHints, InotifyWatcher
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import NO_KNOWN_STATS, LogProblem, LogStat
from tests.support.process import wait_for

ROUNDS = 10


class Counting(LocalLogSource):
    """The local file system, counting what is asked of it: system calls are the cost of idle logs."""

    def __init__(self) -> None:
        super().__init__("local")
        self.asked: list[str] = []

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        self.asked += [*paths, *known]
        return super().stat(paths, known)

    def asked_in(self, poller: SourcePoller, *, hinted_only: bool = False) -> list[str]:
        self.asked = []
        while poller.poll(hinted_only=hinted_only):
            pass
        return self.asked


class Blind(InotifyWatcher):
    """A kernel that promises to announce and then says nothing."""

    def read_hints(self) -> FileHints:
        super().read_hints()
        return FileHints()


class Followed:
    def __init__(self, folder: Path, count: int, kernel: InotifyWatcher | None) -> None:
        self.folder, self.at = folder, time.time()
        self.store = BeamStore(StoreRules(), self.at)
        self.source = Counting()
        self.kernel = kernel
        keys = [BeamKey("c", f"b{number}") for number in range(count)]
        self.store.update_rows([BeamRow(key, self.at, status="x") for key in keys], (), self.at)
        self.poller = SourcePoller(
            self.source,
            [LogPathTemplate(f"{folder}/{{beam_id}}.log")],
            self.store,
            site=SitePatterns(),
            identifiers=PlainIdentifiers(),
            clock=self.clock,
            watcher=kernel,
            polls_per_hinted_log=ROUNDS,
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


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[InotifyWatcher]:
    made = InotifyWatcher()
    assert made.watch_folder(str(tmp_path)), "these tests need a file system of this kernel alone: set TMPDIR"
    yield made
    made.close()


def settled(folder: Path, count: int, kernel: InotifyWatcher | None) -> Followed:
    world = Followed(folder, count, kernel)
    for number in range(count):
        world.start_batch(number, 1)
    for _ in range(ROUNDS + 3):
        world.source.asked_in(world.poller)
    assert set(world.batches().values()) == {1}
    return world


def test_idle_logs_are_asked_for_once_in_so_many_rounds(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 50, kernel)
    rounds = [world.source.asked_in(world.poller) for _ in range(ROUNDS)]
    assert {len(asked) for asked in rounds} == {5}
    assert sorted(path for asked in rounds for path in asked) == sorted(str(world.log(each)) for each in range(50))


def test_polling_alone_asks_once_for_each_log_in_each_round(tmp_path: Path) -> None:
    world = settled(tmp_path, 50, None)
    for _ in range(3):
        assert sorted(world.source.asked_in(world.poller)) == sorted(str(world.log(each)) for each in range(50))
    assert world.store.snapshot(world.at).sources[0].read_bytes == sum(log.stat().st_size for log in tmp_path.iterdir())


@pytest.mark.parametrize("announced", [False, True])
def test_of_beams_that_left_nothing_waits_for_the_search_for_garbage(
    tmp_path: Path, kernel: InotifyWatcher, announced: bool
) -> None:
    world = settled(tmp_path, 3, kernel if announced else None)

    def held() -> int:
        return sum(isinstance(each, Candidates) for each in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        for number in range(3, 20):
            key = BeamKey("c", f"b{number}")
            world.store.update_rows([BeamRow(key, world.at, status="x")], (), world.at)
            world.source.asked_in(world.poller)
            world.store.update_rows([], [key], world.at)
            world.at += 120
            world.store.advance(world.at)
            world.source.asked_in(world.poller)
        assert len(world.batches()) == 3
        assert held() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("announced", [False, True])
def test_a_log_that_looks_again_as_it_did_before_it_grew_is_read(
    tmp_path: Path, kernel: InotifyWatcher, announced: bool
) -> None:
    world = settled(tmp_path, 3, kernel if announced else None)
    before = world.log(1).stat()
    world.start_batch(1, 2)
    world.source.asked_in(world.poller, hinted_only=announced)
    assert world.batches()["b1"] == 2
    world.log(1).write_bytes(b"Generating particles for (3 of 1000 batches) in CPU ..\n")
    os.utime(world.log(1), ns=(before.st_atime_ns, before.st_mtime_ns))
    now = world.log(1).stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    world.source.asked_in(world.poller, hinted_only=announced)
    assert world.batches()["b1"] == 3


def test_a_log_that_has_just_been_met_may_be_another_by_the_next_round(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 2, kernel)
    world.start_batch(2, 1)
    key, other = BeamKey("c", "b2"), tmp_path / "other.log"
    world.store.update_rows([BeamRow(key, world.at, status="x")], (), world.at)
    world.source.asked_in(world.poller)
    assert world.batches()["b2"] == 1
    other.write_bytes(b"Generating particles for (7 of 1000 batches) in CPU ..\n")
    os.utime(other, (world.at + 60, world.at + 60))
    world.store.update_rows([BeamRow(key, world.at, status="x", log_path=str(other))], (), world.at)
    for _ in range(2):
        assert str(world.log(2)) not in world.source.asked_in(world.poller)
    assert world.batches()["b2"] == 7


def test_an_announced_look_asks_for_the_logs_that_grew(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 50, kernel)
    assert world.source.asked_in(world.poller, hinted_only=True) == []
    world.start_batch(7, 2)
    world.start_batch(8, 2)
    asked = world.source.asked_in(world.poller, hinted_only=True)
    assert sorted(asked) == [str(world.log(7)), str(world.log(8))]
    assert {beam for beam, batch in world.batches().items() if batch == 2} == {"b7", "b8"}


def test_a_log_that_appears_is_announced(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 3, kernel)
    world.store.update_rows([BeamRow(BeamKey("c", "b3"), world.at, status="x")], (), world.at)
    for _ in range(3):
        world.source.asked_in(world.poller)
    world.start_batch(3, 1)
    world.source.asked_in(world.poller, hinted_only=True)
    assert world.batches()["b3"] == 1


def test_a_log_in_the_place_of_another_is_announced_from_then_on(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 3, kernel)
    # The inode of the one before is often used again, so nothing but its name tells.
    content = world.log(1).read_bytes()
    world.log(1).unlink()
    world.log(1).write_bytes(content)
    world.source.asked_in(world.poller, hinted_only=True)
    world.start_batch(1, 2)
    assert world.source.asked_in(world.poller, hinted_only=True) == [str(world.log(1))]
    assert world.batches()["b1"] == 2


def test_links_and_second_names_are_looked_at_in_every_round(tmp_path: Path, kernel: InotifyWatcher) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "b0.log").symlink_to(elsewhere / "real.log")
    (elsewhere / "second.log").touch()
    os.link(elsewhere / "second.log", tmp_path / "b1.log")
    world = settled(tmp_path, 3, kernel)
    for _ in range(2):
        asked = world.source.asked_in(world.poller)
        assert {str(world.log(0)), str(world.log(1))} <= set(asked)
    with (elsewhere / "second.log").open("ab") as file:
        file.write(b"Generating particles for (2 of 1000 batches) in CPU ..\n")
    world.source.asked_in(world.poller)
    assert world.batches()["b1"] == 2


def test_where_the_kernel_is_silent_nothing_is_lost_and_the_folder_is_polled(tmp_path: Path) -> None:
    blind = Blind()
    assert blind.watch_folder(str(tmp_path)), "these tests need a file system of this kernel alone: set TMPDIR"
    world = settled(tmp_path, 20, blind)
    for number in range(20):
        world.start_batch(number, 2)
    with capture_logs() as logs:
        for _ in range(ROUNDS):
            world.source.asked_in(world.poller)
    assert set(world.batches().values()) == {2}
    assert [entry["event"] for entry in logs] == [
        "the kernel did not announce a change, the folder is polled from now on"
    ]
    assert world.store.snapshot(world.at).sources[0].errors == {"notification": 1}
    assert len(world.source.asked_in(world.poller)) == 20
    blind.close()


def test_what_was_announced_is_never_held_against_the_kernel(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 5, kernel)
    for batch in range(2, 40):
        world.start_batch(batch % 5, batch)
        world.source.asked_in(world.poller, hinted_only=bool(batch % 3))
    assert world.store.snapshot(world.at).sources[0].errors == {}


def test_after_lost_announcements_every_log_is_looked_at(
    tmp_path: Path, kernel: InotifyWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = settled(tmp_path, 20, kernel)
    world.start_batch(11, 2)

    def lost() -> FileHints:
        announced = FileHints()
        announced.lost = True
        return announced

    with monkeypatch.context() as patch:
        patch.setattr(kernel, "read_hints", lost)
        assert len(set(world.source.asked_in(world.poller, hinted_only=True))) == 20
    assert world.batches()["b11"] == 2
    for _ in range(3):
        world.source.asked_in(world.poller)
    assert len(world.source.asked_in(world.poller)) == 2


def test_a_big_log_is_read_to_its_end_by_announced_looks(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 2, kernel)
    with world.log(1).open("ab") as file:
        file.write(b"noise\n" * 200_000 + b"Generating particles for (2 of 1000 batches) in CPU ..\n")
    world.source.asked_in(world.poller, hinted_only=True)
    assert world.batches()["b1"] == 2


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["grow", "new", "delete", "look", "round"])), max_size=40
    )
)
def test_whatever_happens_to_logs_both_ways_of_following_agree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    """A model: announced looks and rounds on one side, a poll of everything on the other."""
    folder = tmp_path_factory.mktemp("logs")
    made = InotifyWatcher()
    announced, polled = Followed(folder, 6, made), Followed(folder, 6, None)
    announced.source.asked_in(announced.poller)
    for batch, (number, step) in enumerate(steps, start=1):
        if step == "grow":
            announced.start_batch(number, batch)
        elif step == "new":
            announced.log(number).write_bytes(b"Generating particles for (%d of 999 batches) in CPU ..\n" % batch)
        elif step == "delete":
            announced.log(number).unlink(missing_ok=True)
        polled.source.asked_in(polled.poller)
        announced.source.asked_in(announced.poller, hinted_only=step != "round")
    announced.source.asked_in(announced.poller)
    assert announced.batches() == polled.batches()
    made.close()


def test_a_write_is_seen_long_before_the_next_round(tmp_path: Path, kernel: InotifyWatcher) -> None:
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
    following = Pipeline(settings, store, PlainIdentifiers(), lambda: at)

    def current() -> int:
        return max((view.batch_current for view in store.snapshot(at).beams), default=0)

    following.start()
    try:
        wait_for(lambda: current() == 1, "the first look")
        # Each is a round of its own: the next would come in an hour.
        for batch in range(2, 6):
            with log.open("ab") as file:
                file.write(b"Generating particles for (%d of 1000 batches) in CPU ..\n" % batch)
            wait_for(lambda batch=batch: current() == batch, f"batch {batch}")  # type: ignore[misc]
    finally:
        following.stop()
        following.close()


class Listings(Counting):
    """Counters listings, too."""

    def __init__(self) -> None:
        super().__init__()
        self.listings = 0

    def listing(self, folder: str) -> Mapping[str, LogStat]:
        self.listings += 1
        return super().listing(folder)


@pytest.mark.parametrize("announced", [True, False])
def test_a_folder_whose_names_stay_is_listed_rarely_and_a_new_log_at_once(tmp_path: Path, announced: bool) -> None:
    at = [time.time()]
    configured = Settings.model_validate(
        {
            "sources": [{"name": "local", "kind": "local", "log_path": [f"{tmp_path}/{{case_id}}_{{beam_id}}.log"]}],
            "discovery": {"kind": "directory", "interval_seconds": 2},
        }
    )
    (tmp_path / "c_b0.log").touch()
    store = BeamStore(StoreRules(), at[0])
    source = Listings()
    templates = configured.templates(configured.sources[0])
    changed = [True]

    def names_changed(_: Collection[str]) -> bool:
        before, changed[0] = changed[0], not announced
        return before

    identifiers = PlainIdentifiers()
    loop = DirectoryDiscoveryLoop(configured, source, templates, store, identifiers, lambda: at[0], names_changed)

    def discover(times: int) -> int:
        before = source.listings
        for _ in range(times):
            at[0] += 2.5
            loop.run_once()
        return source.listings - before

    discover(5)
    assert {view.key.beam_id for view in store.snapshot(at[0]).beams} == {"b0"}
    idle = discover(30)
    assert idle == 2
    (tmp_path / "c_b1.log").touch()
    changed[0] = True
    assert discover(1) == 1
    assert {view.key.beam_id for view in store.snapshot(at[0]).beams} == {"b0", "b1"}
    # Within the time stamps' granularity another may have come: the next rounds list, too, where nobody announces it.
    assert discover(2) == (0 if announced else 2)


@pytest.mark.parametrize("polling_only", [False, True])
def test_a_look_that_is_asked_for_comes_long_before_its_time(
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
    following = Pipeline(settings, store, PlainIdentifiers(), time.time)
    following.start()
    try:
        wait_for(lambda: following.unready() is None, "the first looks")
        looked = store.snapshot(time.time()).sources[0].last_poll_at

        following._poll_now()

        wait_for(lambda: store.snapshot(time.time()).sources[0].last_poll_at != looked, "a further look", 20.0)
    finally:
        following.stop()
        following.close()


def test_an_announced_look_does_not_wait_until_all_names_have_been_looked_at(
    tmp_path: Path, kernel: InotifyWatcher
) -> None:
    world = settled(tmp_path, 3, kernel)
    waits = _Waits(kernel, 0.5)
    names = {f"c_b{number}.log": LogStat(0, world.at) for number in range(1200)}
    shown: list[int] = []

    def between() -> None:
        world.start_batch(1, 2 + len(shown))
        waits.poll_hinted(world.poller)
        shown.append(world.batches()["b1"])

    found = DirectoryDiscovery().find_beams(world.at, {"/logs": names}, between)

    assert shown == [2, 3, 4]
    assert len(found.rows) == 1200


def test_nothing_is_looked_at_between_names_while_nothing_is_announced(tmp_path: Path, kernel: InotifyWatcher) -> None:
    world = settled(tmp_path, 3, kernel)
    looks = world.store.snapshot(world.at).sources[0].poll_seconds.count

    _Waits(kernel, 0.5).poll_hinted(world.poller)
    _Waits(None, 0.5).poll_hinted(world.poller)

    assert world.store.snapshot(world.at).sources[0].poll_seconds.count == looks
