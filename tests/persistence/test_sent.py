from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from exporter.persistence.sent import SentOnDisk
from exporter.privacy.encryption import Encryption


def make_store(folder: Path) -> Path:
    path = folder / "state.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE notifications (destination TEXT NOT NULL, key TEXT NOT NULL, sent_at REAL NOT NULL, "
            "PRIMARY KEY (destination, key)) WITHOUT ROWID"
        )
    return path


def test_what_was_sent_is_known_after_a_restart(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    first = SentOnDisk(path, 400)
    assert first.is_new("physics")
    first.remember("physics", ["a", "b"])
    first.forget("physics", "b")
    later = SentOnDisk(path, 400)
    assert not later.is_new("physics")
    assert later.is_new("operators")
    assert (later.was_sent("physics", "a"), later.was_sent("physics", "b")) == (True, False)


def test_a_destination_that_got_nothing_yet_is_known_after_a_restart(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    SentOnDisk(path, 400).remember("physics", [])
    assert not SentOnDisk(path, 400).is_new("physics")


def test_without_a_store_on_disk_messages_are_remembered_in_memory_and_written_later(
    tmp_path: Path,
) -> None:
    sent = SentOnDisk(tmp_path / "state.db", 400)
    sent.remember("physics", ["a"])
    assert sent.was_sent("physics", "a")
    assert not (tmp_path / "state.db").exists(), "only the state writer makes the store"
    path = make_store(tmp_path)
    sent.save()
    assert SentOnDisk(path, 400).was_sent("physics", "a")


def test_a_store_that_cannot_be_used_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database" * 1000)
    sent = SentOnDisk(path, 400)
    sent.remember("physics", ["a"])
    assert sent.was_sent("physics", "a")


def test_what_was_sent_long_ago_is_forgotten_but_the_destination_is_not_new(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    SentOnDisk(path, 400).remember("physics", ["a"])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE notifications SET sent_at = sent_at - 401 * 86400")
    SentOnDisk(path, 400).remember("physics", ["b"])
    later = SentOnDisk(path, 400)
    assert (later.was_sent("physics", "a"), later.was_sent("physics", "b"), later.is_new("physics")) == (
        False,
        True,
        False,
    )


def test_with_pseudonyms_keys_are_hashed_with_the_sites_key(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    SentOnDisk(path, 400, Encryption(b"k" * 32)).remember("physics", ["a"])
    assert SentOnDisk(path, 400, Encryption(b"k" * 32)).was_sent("physics", "a")
    assert not SentOnDisk(path, 400, Encryption(b"x" * 32)).was_sent("physics", "a")
    assert not SentOnDisk(path, 400).was_sent("physics", "a")
