"""The kernel's announcements on a real file system: what they tell, and where none may be relied on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sources import inotify as module
from exporter.sources.inotify import InotifyWatcher, open_watcher, plain_file


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[InotifyWatcher]:
    made = InotifyWatcher()
    assert made.watch_folder(str(tmp_path)), "these tests need a file system of this kernel alone: set TMPDIR"
    yield made
    made.close()


def test_new_names_and_replacements_are_announced(announced: InotifyWatcher, tmp_path: Path) -> None:
    log, other = tmp_path / "a.log", tmp_path / "b.log"
    log.write_bytes(b"one\n")
    told = announced.read_hints()
    assert (told.renamed, told.changed) == ({str(log)}, set())
    assert told.folders == {str(tmp_path)}
    log.rename(other)
    assert announced.read_hints().renamed == {str(log), str(other)}
    assert announced.read_hints().paths == set()


def test_what_happens_to_a_watched_log_is_announced_after_each_take(announced: InotifyWatcher, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    assert announced.watch_log(str(log))
    announced.read_hints()

    def append() -> None:
        with log.open("ab") as file:
            file.write(b"two\n")

    for change in (append, append, lambda: os.truncate(log, 0), append, lambda: log.chmod(0o600)):
        change()
        told = announced.read_hints()
        assert (told.changed, told.renamed, told.folders, told.lost) == ({str(log)}, set(), set(), False)
        assert announced.read_hints().paths == set()


def test_a_log_is_announced_once_however_often_it_is_written(announced: InotifyWatcher, tmp_path: Path) -> None:
    """Each announcement takes its part of a write: the simulation must not wait for it."""
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    for log in logs:
        log.touch()
        assert announced.watch_log(str(log))
    announced.read_hints()
    with logs[0].open("ab", buffering=0) as one, logs[1].open("ab", buffering=0) as other:
        for _ in range(1000):
            one.write(b"x")
            other.write(b"x")
    queued = announced._read()
    assert len(queued) == 4 * module._EVENT.size, "each log's change, and the end of its watch"


def test_logs_that_come_again_are_watched_when_asked_and_missing_ones_are_not(
    announced: InotifyWatcher, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    assert not announced.watch_log(str(log))
    assert not announced.watch_log("/nowhere/at\0all")
    for _ in range(3):
        log.write_bytes(b"x")
        assert announced.watch_log(str(log))
        announced.read_hints()
        log.unlink()
        told = announced.read_hints()
        assert str(log) in told.renamed
        assert not told.lost


def test_a_wait_ends_with_an_announcement_or_when_woken(announced: InotifyWatcher, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for end in (log.touch, lambda: log.write_bytes(b"x"), announced.wake):
        timer = threading.Timer(0.05, end)
        timer.start()
        announced.wait(60.0)
        timer.join()
        announced.read_hints()
        announced.watch_log(str(log))
    # Being woken counts before the wait, too, and while announcements are gathered.
    announced.wake()
    announced.wait(60.0, 60.0)
    log.write_bytes(b"y")
    announced.wait(60.0, 0.001)


def test_a_folder_that_goes_is_watched_no_more(announced: InotifyWatcher, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    assert not announced.watch_folder(str(folder))
    folder.mkdir()
    assert announced.watch_folder(str(folder))
    shutil.rmtree(folder)
    assert announced.read_hints().lost
    assert not announced.watching(str(folder))
    folder.mkdir()
    assert announced.watch_folder(str(folder))


def test_folders_are_forgotten_and_may_share_a_watch(announced: InotifyWatcher, tmp_path: Path) -> None:
    log, link = tmp_path / "a.log", tmp_path / "link"
    link.symlink_to(tmp_path)
    announced.read_hints()
    assert announced.watch_folder(str(link))
    log.touch()
    assert announced.read_hints().renamed == {str(log), str(link / "a.log")}
    announced.forget_all_but({str(tmp_path)})
    log.unlink()
    assert announced.read_hints().renamed == {str(log)}
    announced.forget_all_but(())
    log.touch()
    assert announced.read_hints().paths == set()


def test_logs_are_forgotten_and_may_share_a_watch(announced: InotifyWatcher, tmp_path: Path) -> None:
    log, link = tmp_path / "a.log", tmp_path / "link"
    link.symlink_to(tmp_path)
    log.touch()
    both = {str(log), str(link / "a.log")}
    for path in both:
        assert announced.watch_log(path)
    announced.read_hints()
    log.write_bytes(b"x")
    assert announced.read_hints().changed == both
    announced.forget_all_but({str(tmp_path)}, {str(log)})
    log.write_bytes(b"y")
    assert announced.read_hints().changed == {str(log)}
    announced.forget_all_but({str(tmp_path)})
    log.write_bytes(b"z")
    assert announced.read_hints().paths == set()


def test_an_overflow_means_that_more_has_changed_than_was_told(announced: InotifyWatcher, tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    log, other = tmp_path / "a.log", tmp_path / "b.log"
    log.touch()
    for _ in range(limit // 4 + 10):
        log.rename(other)
        other.rename(log)
    # What happens to a watched log now is not told any more, and its watch is spent all the same.
    announced.watch_log(str(log))
    log.write_bytes(b"x")
    assert announced.read_hints().lost
    assert announced.watch_log(str(log))
    log.write_bytes(b"y")
    assert announced.read_hints().changed == {str(log)}


def test_other_hosts_file_systems_and_distrusted_folders_are_not_relied_on(
    announced: InotifyWatcher, tmp_path: Path
) -> None:
    assert not announced.watch_folder("/proc/self")
    assert not announced.watch_folder("/nowhere/at\0all")
    log = tmp_path / "a.log"
    log.touch()
    announced.watch_log(str(log))
    announced.read_hints()
    announced.distrust(str(tmp_path))
    assert not announced.watch_folder(str(tmp_path))
    log.write_bytes(b"x")
    assert announced.read_hints().paths == set()


def test_only_a_plain_file_of_one_name_is_announced_in_its_folder(tmp_path: Path) -> None:
    log, link, second = tmp_path / "a.log", tmp_path / "link.log", tmp_path / "second.log"
    log.write_bytes(b"x")
    assert plain_file(str(log))
    link.symlink_to(log)
    assert not plain_file(str(link))
    os.link(log, second)
    assert not plain_file(str(log))
    assert not plain_file(str(tmp_path))
    assert not plain_file(str(tmp_path / "none"))


def test_without_inotify_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(module.InotifyWatcher, "__init__", none_left)
    assert open_watcher() is None
