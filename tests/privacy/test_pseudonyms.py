"""Pseudonyms: stable, keyed, told apart; and the key that they need."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.privacy.pseudonyms import (
    REDACTED,
    PseudonymKey,
    Pseudonyms,
    UnusableKey,
    is_pseudonym,
    matches_beam,
    matches_case,
    read_key,
)
from tests.support.files import NOBODY, open_the_way_to, unprivileged

CONTENT = b"correct horse battery staple, and some more\n"
KEY = PseudonymKey.of(CONTENT)


class _Problem(Exception):
    kind, advice = "permission", "ask"


def test_pseudonyms_are_short_and_have_a_prefix() -> None:
    shown = Pseudonyms(KEY)
    assert re.fullmatch("case-[a-z2-7]{12}", shown.case("MRN-4711"))
    assert re.fullmatch("beam-[a-z2-7]{12}", shown.beam("MRN-4711_1"))


def test_pseudonyms_are_the_same_on_every_host_and_in_every_version() -> None:
    """Written down here: who changes them takes away what dashboards, silences and notes of people refer to."""
    shown = Pseudonyms(KEY)
    assert (shown.case("MRN-4711"), shown.beam("홍길동_1")) == ("case-iuksv4hcnwh6", "beam-4nmph53qkkwb")


def test_a_case_and_a_beam_with_one_id_have_different_pseudonyms() -> None:
    shown = Pseudonyms(KEY)
    assert shown.case("7")[5:] != shown.beam("7")[5:]


def test_another_key_gives_other_pseudonyms() -> None:
    assert Pseudonyms(KEY).case("7") != Pseudonyms(PseudonymKey.of(b"x" * 32)).case("7")


def test_a_line_end_after_the_key_is_ignored() -> None:
    assert PseudonymKey.of(CONTENT.strip()) == PseudonymKey.of(CONTENT) == PseudonymKey.of(CONTENT.strip() + b"\r\n")


def test_the_representation_of_a_key_hides_it() -> None:
    assert repr(KEY) == "PseudonymKey()"


@given(st.lists(st.text(st.characters()), max_size=300, unique=True), st.integers(1, 3))
def test_two_ids_never_share_a_pseudonym(ids: list[str], characters: int) -> None:
    shown = Pseudonyms(KEY, characters=characters)
    pseudonyms = [shown.case(each) for each in ids]
    assert len(set(pseudonyms)) == len(ids)
    assert [shown.case(each) for each in ids] == pseudonyms
    # Also those that had to be longer lead back, and what is found is among those that begin alike.
    assert all(matches_case(pseudonym, KEY, each) for each, pseudonym in zip(ids, pseudonyms, strict=True))


def test_pseudonyms_are_distinct_with_many_threads() -> None:
    shown = Pseudonyms(KEY, characters=2)
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([shown.beam(str(number)) for number in range(2000)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    assert len(set(found[0])) == 2000


def test_old_ids_are_dropped_from_the_cache_and_get_the_same_pseudonym_again() -> None:
    shown = Pseudonyms(KEY, cache_size=10)
    first = shown.case("first")
    for number in range(1000):
        shown.case(str(number))
    remembered = shown._cases
    assert len(remembered._pseudonyms) == len(remembered._taken) == 10
    assert shown.case("first") == first


def test_other_texts_are_redacted_unless_configured_or_known() -> None:
    shown = Pseudonyms(KEY)
    shown.allow_plain(statuses={"at_the_gpu"}, paths={"/srv/mqi.db"})
    assert shown.path("/srv/mqi.db") == "/srv/mqi.db"
    assert shown.path("/srv/mqi.db/Doe.log") == REDACTED
    assert [shown.status(each) for each in ("pending", "at_the_gpu", "for Doe")] == ["pending", "at_the_gpu", REDACTED]
    assert shown.status(REDACTED) == REDACTED
    assert shown.text("Doe") == REDACTED
    assert shown.lines(["", "Doe", "Doe"]) == [REDACTED]
    assert shown.lines([]) == []
    assert shown.problem(_Problem("cannot read /Doe")) == "permission, the rest is redacted; ask"


@pytest.mark.parametrize(
    "text", ["MRN-4711", "case-7", "case-MRN-4711-AB", "beam-aaaaaaaaaaa1", "aaaaaaaaaaaaaaaaa", ""]
)
def test_an_id_is_not_taken_for_a_pseudonym(text: str) -> None:
    assert not is_pseudonym(text)


def test_a_pseudonym_matches_its_id_only_with_the_key() -> None:
    shown = Pseudonyms(KEY)
    case, beam = shown.case("7"), shown.beam("7_1")
    assert is_pseudonym(case)
    assert matches_case(case, KEY, "7")
    assert matches_beam(beam, KEY, "7_1")
    assert not matches_case(case, KEY, "8")
    assert not matches_case(beam, KEY, "7_1")
    assert not matches_case(case, PseudonymKey.of(b"x" * 32), "7")


# The key's file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pseudonyms.key"
    path.write_bytes(CONTENT)
    path.chmod(0o600)
    return path


def test_a_key_file_readable_by_owner_and_group_is_accepted(file: Path) -> None:
    assert read_key(file) == KEY
    file.chmod(0o440)
    assert read_key(file) == KEY


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o620, 0o602, 0o644])
def test_a_key_that_others_may_read_or_change_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UnusableKey, match=rf"{file} can be read or changed by others \(mode {mode:04o}\); chmod 600"):
        read_key(file)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_key_that_belongs_to_somebody_else_is_refused_with_the_fix(file: Path, mode: int) -> None:
    file.chmod(mode)
    os.chown(file, 4711, os.getegid())
    with pytest.raises(UnusableKey, match=rf"{file} belongs to another user.*run `chown root {file}`"):
        read_key(file)
    assert read_key(file, any_owner=True) == KEY


def test_a_key_of_root_or_of_the_exporters_user_is_accepted(file: Path) -> None:
    open_the_way_to(file.parent)
    file.chmod(0o440)
    os.chown(file, 0, os.getegid())
    with unprivileged():
        assert read_key(file) == KEY
    os.chown(file, NOBODY, os.getegid())
    with unprivileged():
        assert read_key(file) == KEY


def test_an_unusable_key_is_refused_with_the_command_that_makes_one(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"x" * 31 + b"\n")
    with pytest.raises(UnusableKey, match=r"fewer than 32 bytes.*openssl rand -base64 48"):
        read_key(file)
    file.write_bytes(b"x" * 5000)
    with pytest.raises(UnusableKey, match="larger than 4096 bytes"):
        read_key(file)
    with pytest.raises(UnusableKey, match=r"none\.key does not exist; make one"):
        read_key(tmp_path / "none.key")
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(UnusableKey, match="not a file"):
            read_key(path)


def test_a_pipe_as_key_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    with pytest.raises(UnusableKey, match="not a file"):
        read_key(tmp_path / "key")
