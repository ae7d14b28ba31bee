"""The database on disk, whatever becomes of it: damaged, foreign, encrypted, on a full disk."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.beams.saved import SavedCounters, StoreChanges, StoredState
from exporter.beams.snapshot import BeamKey, EndedRun
from exporter.persistence.errors import StateNotOurs, StateNotSaved, StateReadable, StateUnusable
from exporter.persistence.store import StateStore, is_plain
from exporter.privacy.encryption import Encryption

KEY = bytes(range(32))
ONE, TWO = BeamKey("Doe", "Doe_1"), BeamKey("Doe", "Doe_2")


def ended(key: BeamKey = ONE, at: float = 50.0, number: int = 1) -> EndedRun:
    return EndedRun(key, "local", number, "succeeded", None, at - 10, at)


def changes(
    beams: dict[BeamKey, bytes | None],
    forgotten: dict[BeamKey, bytes | None] | None = None,
    parts: dict[str, bytes] | None = None,
    runs: list[EndedRun] | None = None,
) -> StoreChanges:
    counters = SavedCounters(0.0, [], {}, {})
    return StoreChanges(beams, forgotten or {}, {"counters": b"{}"} if parts is None else parts, runs or [], counters)


WHOLE = changes({ONE: b'{"name":"\xc3\xa4"}', TWO: b"{}"}, {TWO: b"[]"}, {"counters": b'{"since":1.0}'}, [ended()])
READ = StoredState({"counters": b'{"since":1.0}'}, [b'{"name":"\xc3\xa4"}', b"{}"], [b"[]"], [ended()])


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    found: bytes | None = request.param
    return found


@pytest.fixture
def store(tmp_path: Path, key: bytes | None) -> Iterator[StateStore]:
    store = make(tmp_path, key)
    yield store
    store.close()


def make(folder: Path, key: bytes | None = None) -> StateStore:
    return StateStore(folder / "state.db", None if key is None else Encryption(key))


def test_what_was_written_is_read(store: StateStore, tmp_path: Path, key: bytes | None) -> None:
    assert store.read() is None
    store.write(WHOLE)
    store.close()
    assert make(tmp_path, key).read() == READ


def test_only_what_changed_is_written_and_the_rest_stays(store: StateStore, tmp_path: Path, key: bytes | None) -> None:
    store.write(WHOLE)
    store.write(changes({TWO: b"[2]"}, {ONE: b"[1]"}, WHOLE.parts, [ended(TWO, 60)]))
    store.write(changes({ONE: None}, {TWO: b"[again]"}, WHOLE.parts))
    store.close()
    again = make(tmp_path, key).read()
    assert again == StoredState(READ.parts, [b"[2]"], [b"[1]", b"[again]"], [ended(), ended(TWO, 60)])


def test_beams_stay_in_the_order_in_which_they_came(store: StateStore) -> None:
    keys = [BeamKey("c", str(number)) for number in (3, 1, 2)]
    store.write(changes({each: each.beam_id.encode() for each in keys}))
    store.write(changes({keys[0]: b"3!"}))
    read = store.read()
    assert read is not None
    assert read.beams == [b"3!", b"1", b"2"]


def test_the_last_200_runs_are_read_and_old_ones_leave_the_history(store: StateStore) -> None:
    store.write(changes({}, runs=[ended(number=number, at=number) for number in range(300)]))
    read = store.read()
    assert read is not None
    assert [run.run_number for run in read.ended] == list(range(100, 300))
    store.write(changes({}), forget_runs_before=250)
    read = store.read()
    assert read is not None
    assert [run.run_number for run in read.ended] == list(range(250, 300))


def test_a_store_is_for_its_owner_alone(tmp_path: Path, key: bytes | None) -> None:
    before = os.umask(0)
    try:
        store = make(tmp_path, key)
        store.write(WHOLE)
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
        store.close()
        assert [path.name for path in tmp_path.iterdir()] == ["state.db"]
        store.path.chmod(0o644)
        assert make(tmp_path, key).read() == READ
        assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_what_a_killed_process_left_unwritten_in_the_log_is_read(store: StateStore, tmp_path: Path) -> None:
    """The write-ahead log of a process that did not close it."""
    store.write(WHOLE)
    assert (tmp_path / "state.db-wal").stat().st_size > 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("state.db", "state.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    key = KEY if not is_plain(store.path) else None
    assert make(copy, key).read() == READ


def test_a_link_at_the_place_of_the_new_file_is_not_followed(store: StateStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious", encoding="utf-8")
    (tmp_path / "state.db.new").symlink_to(precious)
    store.write(WHOLE)
    assert precious.read_text(encoding="utf-8") == "precious"


def test_a_full_disk_leaves_the_store_as_it_was(store: StateStore, tmp_path: Path, key: bytes | None) -> None:
    store.write(WHOLE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(StateNotSaved):
            store.write(changes({BeamKey("c", str(number)): b"x" * 10_000 for number in range(100)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.needs_everything
    store.close()
    assert make(tmp_path, key).read() == READ


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "later" / "state.db")
    assert store.read() is None
    with pytest.raises(StateNotSaved, match="No such file or directory"):
        store.write(WHOLE)
    store.path.parent.mkdir()
    store.write(WHOLE)
    store.close()


def test_a_store_that_was_deleted_meanwhile_is_written_anew(store: StateStore, tmp_path: Path) -> None:
    store.write(WHOLE)
    assert not store.needs_everything
    store.path.unlink()
    assert store.needs_everything
    store.write(WHOLE)
    assert store.read() == READ


@pytest.mark.parametrize("state", ["beams", "forgotten", "parts", "runs"])
def test_a_row_that_somebody_has_changed_is_refused(
    store: StateStore, tmp_path: Path, key: bytes | None, state: str
) -> None:
    store.write(WHOLE)
    store.close()
    column = "run" if state == "runs" else "state"
    with sqlite3.connect(store.path) as database:
        database.execute(f"UPDATE {state} SET {column} = CAST({column} AS TEXT) || ' '")
    database.close()
    with pytest.raises(StateUnusable, match="a checksum is another"):
        make(tmp_path, key).read()


def _overwrite(at: int, data: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:at] + data + whole[at + len(data) :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zeros": (lambda data: bytes(len(data)), "was not written by this exporter"),
    "cut_in_the_middle": (lambda data: data[: len(data) // 2], "is damaged"),
    "cut_in_its_head": (lambda data: data[:60], "is cut off"),
    "noise_in_a_page": (_overwrite(4096, os.urandom(20_000)), "is damaged"),
    "text": (lambda data: b"log: {level: info}\n", "was not written by this exporter"),
    "newer": (_overwrite(60, (2).to_bytes(4, "big")), r"was written by a newer exporter \(version 2, not 1\)"),
    "older": (_overwrite(60, bytes(4)), r"was written by another exporter \(version 0, not 1\)"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_store_is_refused(store: StateStore, tmp_path: Path, key: bytes | None, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    store.write(WHOLE)
    store.close()
    store.path.write_bytes(damage(store.path.read_bytes()))
    with pytest.raises(StateUnusable, match=reason):
        make(tmp_path, key).read()


@given(st.data())
def test_a_change_of_some_bytes_is_found_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("state")
    store = make(folder)
    store.write(WHOLE)
    store.close()
    written = bytearray(store.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(written) - 1))
        written[place] ^= data.draw(st.integers(1, 255))
    store.path.write_bytes(written)
    again = make(folder)
    try:
        found = again.read()
    except StateUnusable:
        return
    finally:
        again.close()
    assert found == READ or found is None or not set(found.beams) - set(READ.beams)


@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_are_taken_for_a_store(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = make(tmp_path_factory.mktemp("state"))
    store.path.write_bytes(data)
    with pytest.raises(StateUnusable):
        store.read()


def test_a_database_a_folder_or_a_pipe_is_never_touched(tmp_path: Path) -> None:
    others = tmp_path / "others.db"
    with sqlite3.connect(others) as database:
        database.execute("CREATE TABLE beams (beam_id TEXT)")
    database.close()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = others.read_bytes()
    for path in (others, tmp_path, pipe):
        store = StateStore(path)
        with pytest.raises(StateNotOurs):
            store.read()
        with pytest.raises((StateNotOurs, StateNotSaved)):
            store.write(WHOLE)
    assert others.read_bytes() == before


class TestEncrypted:
    def test_no_id_and_no_state_can_be_read_in_the_files(self, tmp_path: Path) -> None:
        store = make(tmp_path, KEY)
        store.write(changes({ONE: b'{"secret":"Doe"}'}, {TWO: b'["Doe"]'}, {"counters": b'"Doe"'}, [ended()]))
        for path in tmp_path.iterdir():
            data = path.read_bytes()
            assert b"Doe" not in data
            assert b"succeeded" not in data
        store.close()

    def test_another_key_does_not_open_it(self, tmp_path: Path) -> None:
        self.write(tmp_path, KEY)
        with pytest.raises(StateUnusable, match="another key"):
            make(tmp_path, bytes(32)).read()

    def test_without_a_key_it_is_not_called_damaged(self, tmp_path: Path) -> None:
        self.write(tmp_path, KEY)
        with pytest.raises(StateUnusable, match=r"encrypted, and privacy\.identifiers is plain"):
            make(tmp_path).read()

    def test_a_state_in_the_place_of_another_does_not_open(self, tmp_path: Path) -> None:
        store = self.write(tmp_path, KEY)
        with sqlite3.connect(store.path) as database:
            first = "(SELECT state FROM beams ORDER BY id LIMIT 1)"
            same = "(SELECT checksum FROM beams ORDER BY id LIMIT 1)"
            database.execute(f"UPDATE beams SET state = {first}, checksum = {same}")
        database.close()
        with pytest.raises(StateUnusable, match="has been changed"):
            make(tmp_path, KEY).read()

    def test_a_plain_store_is_read_and_encrypted_by_the_next_write_with_its_history(self, tmp_path: Path) -> None:
        self.write(tmp_path, None)
        store = make(tmp_path, KEY)
        assert store.read() == READ
        assert store.needs_everything
        store.write(changes(WHOLE.beams, WHOLE.forgotten, WHOLE.parts, [ended(TWO, 60)]))
        store.close()
        assert not is_plain(store.path)
        assert b"Doe" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        again = make(tmp_path, KEY).read()
        assert again is not None
        assert again.ended == [ended(), ended(TWO, 60)]

    def test_a_plain_store_that_is_damaged_must_not_be_kept(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, None).path
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(StateReadable):
            make(tmp_path, KEY).read()

    def write(self, folder: Path, key: bytes | None) -> StateStore:
        store = make(folder, key)
        store.write(WHOLE)
        store.close()
        return store
