"""Each door, tried briefly; and with every input that ever found something."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import FINDINGS, NAMES, Target, findings, target


def inputs(tried: Target) -> st.SearchStrategy[bytes]:
    """Bytes without sense, words in any order, and good inputs with something put in, left out or changed."""
    part = st.sampled_from(tried.words) | st.binary(max_size=12)

    def damaged(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for at, left_out, put_in in edits:
            seed = seed[: at % (len(seed) + 1)] + put_in + seed[at % (len(seed) + 1) + left_out :]
        return seed

    edit = st.tuples(st.integers(0, tried.longest_bytes), st.integers(0, 20), part)
    return (
        st.binary(max_size=100)
        | st.lists(part, max_size=30).map(b"".join)
        | st.builds(damaged, st.sampled_from(list(tried.seeds())), st.lists(edit, max_size=5))
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_input_breaks_a_promise(name: str) -> None:
    tried = target(name)
    with tried.opened() as check:

        @settings(max_examples=tried.examples)
        @given(inputs(tried))
        def holds(data: bytes) -> None:
            check(data)

        holds()


@pytest.mark.parametrize("name", NAMES)
def test_what_found_something_finds_nothing_any_more(name: str) -> None:
    with target(name).opened() as check:
        for path in findings(name):
            check(path.read_bytes())


def test_every_finding_belongs_to_a_door() -> None:
    assert {path.name for path in FINDINGS.iterdir() if path.is_dir()} <= set(NAMES)
