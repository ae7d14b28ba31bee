from __future__ import annotations

from exporter.cli.top.beams import TopBeam
from exporter.cli.top.view import SORTS, TopView

BEAMS = (
    TopBeam("c2", "c2_beam_10", "local", "running", estimated_ratio=0.5, remaining_seconds=30, last_progress_at=50),
    TopBeam("c2", "c2_beam_2", "hpc1", "running", estimated_ratio=0.1, remaining_seconds=300, last_progress_at=10),
    TopBeam("c1", "c1_beam_1", "local", "succeeded", progress_ratio=1.0, last_progress_at=5),
    TopBeam("c1", "c1_beam_2", "local", "failed", reason="cuda", progress_ratio=0.4, last_progress_at=40),
    TopBeam("c3", "Ärztin_1", "local", "waiting", status="pending"),
)


def shown(view: TopView) -> list[str]:
    return [beam.beam_id for beam in view.select(BEAMS)]


def press(view: TopView, *keys: str) -> TopView:
    for key in keys:
        view.handle_key(key, {beam.state for beam in BEAMS})
    return view


def test_what_needs_attention_comes_first_and_numbers_count_as_numbers() -> None:
    assert shown(TopView()) == ["c1_beam_2", "c2_beam_2", "c2_beam_10", "Ärztin_1", "c1_beam_1"]


def test_beam_that_should_have_a_log_by_now_comes_before_those_that_run() -> None:
    overdue = TopBeam("c4", "overdue", state="waiting", status="simulation_running", needs_attention=True)
    order = [beam.beam_id for beam in TopView().select((*BEAMS, overdue))]
    assert order == ["c1_beam_2", "overdue", "c2_beam_2", "c2_beam_10", "Ärztin_1", "c1_beam_1"]


def test_each_order() -> None:
    assert shown(TopView("case")) == ["c1_beam_1", "c1_beam_2", "c2_beam_2", "c2_beam_10", "Ärztin_1"]
    assert shown(TopView("progress")) == ["c1_beam_1", "c2_beam_10", "c1_beam_2", "c2_beam_2", "Ärztin_1"]
    assert shown(TopView("left"))[:2] == ["c2_beam_10", "c2_beam_2"]
    assert shown(TopView("age")) == ["c1_beam_1", "c2_beam_2", "c1_beam_2", "c2_beam_10", "Ärztin_1"]


def test_s_goes_through_the_orders_and_round() -> None:
    view = TopView()
    seen = [press(view, "s").sort for _ in SORTS]
    assert seen == [*list(SORTS)[1:], "state"]


def test_slash_finds_text_while_it_is_typed() -> None:
    view = press(TopView(), "/", *"CUDA")
    assert view.editing
    assert shown(view) == ["c1_beam_2"]
    press(view, "backspace", "backspace", "backspace", "backspace", *"hpc", "enter")
    assert not view.editing
    assert shown(view) == ["c2_beam_2"]


def test_keys_are_text_while_editing() -> None:
    view = press(TopView(), "/", "q", "s", "f", "up", "\t")
    assert (view.text, view.over, view.sort, view.state) == ("qsf", False, "state", None)


def test_escape_shows_all_again() -> None:
    assert press(TopView(), "/", "x", "escape").text == ""
    view = press(TopView(), "/", "x", "enter", "f", "escape")
    assert (view.text, view.state, view.editing) == ("", None, False)


def test_text_is_found_in_any_case() -> None:
    assert shown(TopView(text="ärztin")) == ["Ärztin_1"]
    assert shown(TopView(text="PENDING")) == ["Ärztin_1"]


def test_f_goes_through_the_states_that_there_are() -> None:
    view = TopView()
    assert [press(view, "f").state for _ in range(5)] == ["waiting", "running", "succeeded", "failed", None]
    assert shown(TopView(state="failed")) == ["c1_beam_2"]


def test_a_state_that_no_beam_is_in_any_more_is_left_by_f() -> None:
    assert press(TopView(state="stalled"), "f").state == "succeeded"


def test_scrolling_stops_at_the_first_beam() -> None:
    view = press(TopView(), "down", "down", "pagedown")
    assert view.top == 12
    assert press(view, "pageup", "up", "up", "up").top == 0


def test_q_is_the_end() -> None:
    assert press(TopView(), "q").over
