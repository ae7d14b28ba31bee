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


def test_urgent_beams_come_first_and_digits_sort_as_numbers() -> None:
    assert shown(TopView()) == ["c1_beam_2", "c2_beam_2", "c2_beam_10", "Ärztin_1", "c1_beam_1"]


def test_a_waiting_beam_whose_log_is_overdue_comes_before_running_beams() -> None:
    overdue = TopBeam("c4", "overdue", state="waiting", status="simulation_running", needs_attention=True)
    order = [beam.beam_id for beam in TopView().select((*BEAMS, overdue))]
    assert order == ["c1_beam_2", "overdue", "c2_beam_2", "c2_beam_10", "Ärztin_1", "c1_beam_1"]


def test_each_sort_order() -> None:
    assert shown(TopView("case")) == ["c1_beam_1", "c1_beam_2", "c2_beam_2", "c2_beam_10", "Ärztin_1"]
    assert shown(TopView("progress")) == ["c1_beam_1", "c2_beam_10", "c1_beam_2", "c2_beam_2", "Ärztin_1"]
    assert shown(TopView("left"))[:2] == ["c2_beam_10", "c2_beam_2"]
    assert shown(TopView("age")) == ["c1_beam_1", "c2_beam_2", "c1_beam_2", "c2_beam_10", "Ärztin_1"]


def test_the_key_s_cycles_through_the_sort_orders() -> None:
    view = TopView()
    seen = [press(view, "s").sort for _ in SORTS]
    assert seen == [*list(SORTS)[1:], "state"]


def test_the_key_slash_filters_while_text_is_typed() -> None:
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


def test_the_filter_ignores_upper_and_lower_case() -> None:
    assert shown(TopView(text="ärztin")) == ["Ärztin_1"]
    assert shown(TopView(text="PENDING")) == ["Ärztin_1"]


def test_the_key_f_cycles_through_the_states_of_present_beams() -> None:
    view = TopView()
    assert [press(view, "f").state for _ in range(5)] == ["waiting", "running", "succeeded", "failed", None]
    assert shown(TopView(state="failed")) == ["c1_beam_2"]


def test_the_key_f_leaves_a_state_that_no_beam_has_any_more() -> None:
    assert press(TopView(state="stalled"), "f").state == "succeeded"


def test_scrolling_stops_at_the_first_beam() -> None:
    view = press(TopView(), "down", "down", "pagedown")
    assert view.top == 12
    assert press(view, "pageup", "up", "up", "up").top == 0


def test_the_key_q_quits() -> None:
    assert press(TopView(), "q").over
