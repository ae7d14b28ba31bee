"""The kernel's announcements on a real file system: what they tell, and where none may be relied on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.logs import announcements as module
from exporter.logs.announcements import Announcements, announcements, plain_file


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[Announcements]:
    made = Announcements()
    assert made.watch(str(tmp_path)), "these tests need a file system of this kernel alone: set TMPDIR"
    yield made
    made.close()


def test_writes_new_names_and_replacements_are_announced(announced: Announcements, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    told = announced.take()
    assert told.paths == {str(log)}
    assert told.folders == {str(tmp_path)}
    with log.open("ab") as file:
        file.write(b"two\n")
    told = announced.take()
    assert (told.paths, told.folders, told.lost) == ({str(log)}, set(), False)
    os.truncate(log, 0)
    assert announced.take().paths == {str(log)}
    log.rename(tmp_path / "b.log")
    assert announced.take().paths == {str(log), str(tmp_path / "b.log")}
    assert announced.take().paths == set()


def test_a_wait_ends_with_an_announcement_or_when_woken(announced: Announcements, tmp_path: Path) -> None:
    for end in (lambda: (tmp_path / "a.log").write_bytes(b"x"), announced.wake):
        timer = threading.Timer(0.05, end)
        timer.start()
        announced.wait(60.0)
        timer.join()
        announced.take()
    # Being woken counts before the wait, too, and while announcements are gathered.
    announced.wake()
    announced.wait(60.0, 60.0)
    (tmp_path / "a.log").write_bytes(b"y")
    announced.wait(60.0, 0.001)


def test_a_folder_that_goes_is_watched_no_more(announced: Announcements, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    assert not announced.watch(str(folder))
    folder.mkdir()
    assert announced.watch(str(folder))
    shutil.rmtree(folder)
    assert announced.take().lost
    assert not announced.watching(str(folder))
    folder.mkdir()
    assert announced.watch(str(folder))


def test_folders_are_forgotten_and_may_share_a_watch(announced: Announcements, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    announced.take()
    assert announced.watch(str(link))
    (tmp_path / "a.log").write_bytes(b"x")
    assert announced.take().paths == {str(tmp_path / "a.log"), str(link / "a.log")}
    announced.forget_all_but({str(tmp_path)})
    (tmp_path / "a.log").write_bytes(b"y")
    assert announced.take().paths == {str(tmp_path / "a.log")}
    announced.forget_all_but(())
    (tmp_path / "a.log").write_bytes(b"z")
    assert announced.take().paths == set()


def test_an_overflow_means_that_more_has_changed_than_was_told(announced: Announcements, tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    with first.open("ab", buffering=0) as one, second.open("ab", buffering=0) as other:
        for _ in range(limit // 2 + 10):
            one.write(b"x")
            other.write(b"x")
    assert announced.take().lost


def test_other_hosts_file_systems_and_distrusted_folders_are_not_relied_on(
    announced: Announcements, tmp_path: Path
) -> None:
    assert not announced.watch("/proc/self")
    assert not announced.watch("/nowhere/at\0all")
    announced.distrust(str(tmp_path))
    assert not announced.watch(str(tmp_path))


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

    monkeypatch.setattr(module.Announcements, "__init__", none_left)
    assert announcements() is None
