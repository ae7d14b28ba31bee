"""Records that only the holder of a key can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.privacy.encryption import DecryptionFailed, Encryption
from tests.support.old_state import write_old_state

KEY = bytes(range(32))


def test_what_was_encrypted_is_decrypted_by_another_process() -> None:
    for data in (b"", b"Doe", b"x" * 100_000):
        encrypted = Encryption(KEY).encrypt(data, b"here")
        assert Encryption(KEY).decrypt(encrypted, b"here") == data
        assert data == b"" or data[:3] not in encrypted


def test_equal_records_never_look_alike() -> None:
    one = Encryption(KEY)
    encrypted = {one.encrypt(b"Doe", b"here") for _ in range(100)} | {Encryption(KEY).encrypt(b"Doe", b"here")}
    assert len(encrypted) == 101


@pytest.mark.parametrize(
    ("key", "context", "change"),
    [
        (bytes(32), b"here", bytes),
        (KEY, b"there", bytes),
        (KEY, b"here", lambda data: data[:-1]),
        (KEY, b"here", lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
        (KEY, b"here", lambda data: data[:10]),
        (KEY, b"here", lambda data: b""),
    ],
    ids=["key", "context", "cut", "changed", "no_data", "nothing"],
)
def test_anything_else_is_refused(key: bytes, context: bytes, change: Callable[[bytes], bytes]) -> None:
    encrypted = Encryption(KEY).encrypt(b"Doe", b"here")
    with pytest.raises(DecryptionFailed):
        Encryption(key).decrypt(change(encrypted), context)


def test_keyed_hashes_are_equal_for_equal_texts_only() -> None:
    one = Encryption(KEY)
    assert one.lookup("a", "b") == Encryption(KEY).lookup("a", "b")
    others = {one.lookup("ab"), one.lookup("ab", ""), one.lookup("b", "a"), Encryption(bytes(32)).lookup("a", "b")}
    assert len(others | {one.lookup("a", "b")}) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:-2], lines[-1]],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], b"{}", lines[-1]],
        lambda lines: [],
    ],
    ids=["no end", "a line gone", "another order", "twice the end", "no salt", "readable", "nothing"],
)
def test_lines_of_an_old_state_file_that_are_not_as_they_were_are_refused(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = tmp_path / "state.db"
    write_old_state(path, [b"one", b"two", b"three"], KEY)
    lines = path.read_bytes().splitlines()[1:-1]
    assert Encryption(KEY).decrypt_lines(lines) == [b"one", b"two", b"three"]
    with pytest.raises(DecryptionFailed):
        Encryption(KEY).decrypt_lines(change(lines))
