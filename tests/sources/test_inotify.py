"""Hints of inotify on a real file system: which changes give one, and what each costs a writer."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sources import inotify as module
from exporter.sources.inotify import InotifyWatcher, open_watcher


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[InotifyWatcher]:
    made = InotifyWatcher()
    made.watch_folder(str(tmp_path))
    yield made
    made.close()


def identity(log: Path) -> tuple[int, int]:
    status = log.stat()
    return status.st_dev, status.st_ino


def test_names_that_come_and_go_in_a_watched_folder_give_hints(watcher: InotifyWatcher, tmp_path: Path) -> None:
    log, other = tmp_path / "a.log", tmp_path / "b.log"
    log.write_bytes(b"one\n")
    assert watcher.read_hints() == {str(log)}
    log.rename(other)
    assert watcher.read_hints() == {str(log), str(other)}
    assert watcher.read_hints() == set()


def test_every_change_of_a_watched_log_gives_a_hint(watcher: InotifyWatcher, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    watcher.watch_log(str(log), identity(log))
    watcher.read_hints()

    def append() -> None:
        with log.open("ab") as file:
            file.write(b"two\n")

    for change in (append, append, lambda: os.truncate(log, 0), append, lambda: log.chmod(0o600)):
        change()
        assert watcher.read_hints() == {str(log)}
        assert watcher.read_hints() == set()


def test_a_log_gives_one_hint_however_often_it_is_written(watcher: InotifyWatcher, tmp_path: Path) -> None:
    """Each event of the kernel takes its part of a write: the simulation must not wait for it."""
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    for log in logs:
        log.touch()
        watcher.watch_log(str(log), identity(log))
    watcher.read_hints()
    with logs[0].open("ab", buffering=0) as one, logs[1].open("ab", buffering=0) as other:
        for _ in range(1000):
            one.write(b"x")
            other.write(b"x")
    queued = watcher._read()
    assert len(queued) == 4 * module._EVENT.size, "each log's change, and the end of its watch"


def test_a_log_that_is_watched_already_costs_no_system_call(
    watcher: InotifyWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.log"
    log.touch()
    watcher.watch_log(str(log), identity(log))
    monkeypatch.setattr(watcher, "_add_watch", lambda *_: pytest.fail("watched again"))
    watcher.watch_log(str(log), identity(log))
    watcher.watch_folder(str(tmp_path))


def test_a_log_that_took_the_place_of_another_is_watched_when_asked(watcher: InotifyWatcher, tmp_path: Path) -> None:
    log, new = tmp_path / "a.log", tmp_path / "new"
    log.touch()
    watcher.watch_log(str(log), identity(log))
    new.touch()
    new.rename(log)
    watcher.read_hints()
    watcher.watch_log(str(log), identity(log))
    log.write_bytes(b"x")
    assert watcher.read_hints() == {str(log)}


def test_logs_that_are_not_there_are_ignored(watcher: InotifyWatcher, tmp_path: Path) -> None:
    for path in (str(tmp_path / "none.log"), "/nowhere/at\0all"):
        watcher.watch_log(path)
        watcher.watch_folder(path)
    assert watcher.read_hints() == set()


def test_a_wait_ends_with_a_hint_or_when_woken(watcher: InotifyWatcher, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for end in (log.touch, lambda: log.write_bytes(b"x"), watcher.wake):
        timer = threading.Timer(0.05, end)
        timer.start()
        watcher.wait(60.0)
        timer.join()
        watcher.read_hints()
        watcher.watch_log(str(log), identity(log))
    # Being woken counts before the wait, too, and while hints are gathered.
    watcher.wake()
    watcher.wait(60.0, 60.0)
    log.write_bytes(b"y")
    watcher.wait(60.0, 0.001)


def test_a_folder_that_was_deleted_and_made_again_is_watched_when_asked(
    watcher: InotifyWatcher, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    for _ in range(2):
        folder.mkdir()
        watcher.watch_folder(str(folder))
        watcher.read_hints()
        (folder / "a.log").touch()
        assert watcher.read_hints() == {str(folder / "a.log")}
        shutil.rmtree(folder)
        watcher.read_hints()


def test_folders_are_forgotten_and_may_share_a_watch(watcher: InotifyWatcher, tmp_path: Path) -> None:
    log, link = tmp_path / "a.log", tmp_path / "link"
    link.symlink_to(tmp_path)
    watcher.read_hints()
    watcher.watch_folder(str(link))
    log.touch()
    assert watcher.read_hints() == {str(log), str(link / "a.log")}
    watcher.keep_only({str(tmp_path)}, ())
    log.unlink()
    assert watcher.read_hints() == {str(log)}
    watcher.keep_only((), ())
    log.touch()
    assert watcher.read_hints() == set()


def test_logs_are_forgotten_and_may_share_a_watch(watcher: InotifyWatcher, tmp_path: Path) -> None:
    log, link = tmp_path / "a.log", tmp_path / "link"
    link.symlink_to(tmp_path)
    log.touch()
    both = {str(log), str(link / "a.log")}
    for path in both:
        watcher.watch_log(path, identity(log))
    watcher.read_hints()
    log.write_bytes(b"x")
    assert watcher.read_hints() == both
    watcher.keep_only({str(tmp_path)}, {str(log)})
    log.write_bytes(b"y")
    assert watcher.read_hints() == {str(log)}
    watcher.keep_only({str(tmp_path)}, ())
    log.write_bytes(b"z")
    assert watcher.read_hints() == set()


def test_after_an_overflow_every_watched_log_is_hinted_and_watched_again(
    watcher: InotifyWatcher, tmp_path: Path
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    log, other, name = tmp_path / "a.log", tmp_path / "b.log", tmp_path / "name"
    for path in (log, other, name):
        path.touch()
    watcher.watch_log(str(log), identity(log))
    watcher.watch_log(str(other), identity(other))
    for _ in range(limit // 4 + 10):
        name.rename(tmp_path / "renamed")
        (tmp_path / "renamed").rename(name)
    # This event is lost, and the one-shot watch is spent all the same.
    log.write_bytes(b"x")
    assert {str(log), str(other)} <= watcher.read_hints()
    log.write_bytes(b"y")
    assert watcher.read_hints() == {str(log)}


def test_links_and_second_names_give_hints(watcher: InotifyWatcher, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.log").touch()
    link, second = tmp_path / "link.log", tmp_path / "second.log"
    link.symlink_to(elsewhere / "real.log")
    os.link(elsewhere / "real.log", second)
    watcher.read_hints()
    for path in (link, second):
        watcher.watch_log(str(path), identity(path))
    (elsewhere / "real.log").write_bytes(b"x")
    assert watcher.read_hints() == {str(link), str(second)}


def test_without_inotify_there_is_no_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(module.InotifyWatcher, "__init__", none_left)
    assert open_watcher() is None
