"""The last lines of a log that are kept for people."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.tail_lines import (
    LAST_BYTES,
    LAST_LINE_CHARACTERS,
    LAST_LINES,
    keep_last_bytes,
    last_lines,
)


def kept(*pieces: bytes) -> bytes:
    """What is kept of a log that comes in these pieces."""
    result = b""
    for piece in pieces:
        result = keep_last_bytes(result, piece)
    return result


@given(st.lists(st.binary(max_size=3 * LAST_BYTES), max_size=6))
def test_the_last_bytes_of_a_log_are_kept_however_it_is_split(pieces: list[bytes]) -> None:
    assert kept(*pieces) == b"".join(pieces)[-LAST_BYTES:]


@given(st.binary(max_size=2 * LAST_BYTES))
def test_any_bytes_become_a_few_short_lines(data: bytes) -> None:
    lines = last_lines(kept(data))
    assert len(lines) <= LAST_LINES
    assert all(len(line) <= LAST_LINE_CHARACTERS for line in lines)


def test_lines_come_oldest_first_and_an_unfinished_one_is_the_last() -> None:
    assert last_lines(kept(b"one\r\ntwo\n", b"\nRun transpoKilled")) == ("one", "two", "", "Run transpoKilled")


def test_an_empty_log_has_no_lines() -> None:
    assert last_lines(b"") == ()


def test_only_the_last_fifty_lines_are_shown() -> None:
    log = b"".join(b"%d\n" % number for number in range(200))
    assert last_lines(kept(log)) == tuple(str(number) for number in range(150, 200))


def test_a_line_without_its_beginning_is_left_out() -> None:
    log = b"x" * LAST_BYTES + b"\nwhole\n"
    assert last_lines(kept(log)) == ("whole",)


def test_a_part_of_an_endless_line_is_shown() -> None:
    assert last_lines(kept(b"x" * 100_000)) == ("x" * LAST_LINE_CHARACTERS,)


def test_zero_bytes_are_removed() -> None:
    assert last_lines(kept(b"before\n" + b"\0" * 100 + b"after\n")) == ("before", "after")
    assert last_lines(kept(b"\0" * 100_000)) == ()


def test_bytes_that_are_not_text_are_replaced() -> None:
    assert last_lines(kept(b"Feld \xfc\n")) == ("Feld \N{REPLACEMENT CHARACTER}",)
