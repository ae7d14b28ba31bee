import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.logs.batch_counter import BatchCounter


def counter(total: int | None = 18) -> BatchCounter:
    batches = BatchCounter()
    if total is not None:
        batches.announce(total, 1000)
    return batches


@pytest.mark.parametrize(
    ("number", "total", "anomalies", "started", "of"),
    [
        (5, 18, [], 5, 18),
        (5, 20, ["total_mismatch"], 5, 20),
        (1, 0, ["total_zero"], 1, 18),
        (19, 18, ["batch_beyond_total"], 18, 18),
        (5, None, [], 5, 18),
    ],
)
def test_a_batch_line_updates_the_count_and_reports_anomalies(
    number: int, total: int | None, anomalies: list[str], started: int, of: int
) -> None:
    batches = counter()
    assert batches.start(number, total) == anomalies
    assert (batches.started, batches.total) == (started, of)


def test_batch_numbers_that_go_back_or_repeat_do_not_lower_the_count() -> None:
    batches = counter()
    batches.start(7, 18)
    assert batches.start(3, 18) == ["batch_backwards"]
    assert batches.start(7, 18) == ["batch_repeated"]
    assert batches.started == 7


def test_a_total_below_the_started_batches_limits_them() -> None:
    batches = counter()
    batches.start(7, 18)
    assert batches.start(3, 5) == ["total_mismatch", "batch_backwards"]
    assert (batches.started, batches.finished, batches.total, batches.ratio) == (5, 5, 5, 1.0)


def test_batch_number_zero_starts_no_batch() -> None:
    batches = counter()
    assert batches.start(0, 18) == ["batch_repeated"]
    assert (batches.started, batches.ratio) == (0, 0.0)


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_total_there_is_no_progress(total: int | None) -> None:
    batches = counter(total)
    batches.start(None, None)
    assert (batches.ratio, batches.progress) == (0.0, None)


def test_a_batch_start_finishes_all_earlier_batches() -> None:
    batches = counter()
    batches.start(5, 18)
    assert (batches.started, batches.finished) == (5, 4)


def test_batches_started_before_the_first_announcement_count_as_announced() -> None:
    batches = counter(None)
    batches.start(None, None)
    batches.finish()
    batches.announce(3, 1000)
    assert (batches.total, batches.started, batches.finished) == (4, 1, 1)


def test_batches_without_numbers_are_counted() -> None:
    batches = counter(3)
    for _ in range(3):
        batches.start(None, None)
        batches.finish()
    assert (batches.started, batches.finished, batches.all_finished) == (3, 3, True)


def test_a_finish_without_a_started_batch_is_an_anomaly() -> None:
    batches = counter()
    assert batches.finish() == ["batch_finished_twice"]
    assert batches.finished == 0


def test_batches_of_several_announcements_are_added_up() -> None:
    batches = counter(3)
    for number in (1, 2, 3):
        batches.start(number, 3)
        batches.finish()
    batches.announce(2, 1000)
    batches.start(1, 2)
    assert (batches.total, batches.started, batches.finished, batches.announcements) == (5, 4, 3, 2)


def test_an_announcement_without_batches_is_replaced_by_the_next() -> None:
    batches = counter(0)
    assert batches.announce(4, 1000) == []
    assert batches.announce(4, 1000) == ["announcement_repeated"]
    assert batches.total == 4


NUMBERS = st.one_of(st.none(), st.integers(0, 40), st.integers(0, 10**20))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("announce"), st.integers(0, 40), st.none()),
            st.tuples(st.just("start"), NUMBERS, NUMBERS),
            st.tuples(st.just("finish"), st.none(), st.none()),
        ),
        max_size=60,
    )
)
def test_finished_never_exceeds_started_and_started_never_exceeds_total(
    steps: list[tuple[str, int | None, int | None]],
) -> None:
    batches = BatchCounter()
    for name, first, second in steps:
        before = batches.ratio, batches.total
        if name == "announce":
            batches.announce(first or 0, 1000)
        elif name == "start":
            batches.start(first, second)
        else:
            batches.finish()
        assert 0 <= batches.finished <= batches.started
        if batches.total is not None:
            assert batches.started <= batches.total
        assert 0.0 <= batches.ratio <= 1.0
        if batches.total == before[1]:
            assert batches.ratio >= before[0]
