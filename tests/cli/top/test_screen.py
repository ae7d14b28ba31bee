from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest
from prompt_toolkit.utils import get_cwidth

from exporter.cli.top.beams import BeamList, TopBeam
from exporter.cli.top.screen import draw
from exporter.cli.top.view import TopView

NOW = 1_800_000_000.0
BEAM = TopBeam(
    "70010001", "70010001_beam_1", "local", "running", None, 1, "simulating", 18, 5, 4, 5 / 18, 0.25, 754.0, NOW + 754,
    NOW - 12, "simulation_running",
)  # fmt: skip


def screen(
    *beams: TopBeam,
    width: int = 160,
    height: int | None = None,
    view: TopView | None = None,
    note: str = "",
    trouble: str = "",
) -> str:
    beam_list = BeamList(NOW, beams, "http://there", note)
    lines = draw(beam_list, view or TopView(), NOW, width=width, height=height, trouble=trouble)
    return "\n".join("".join(text for _, text in line) for line in lines)


def line(beam: TopBeam, width: int = 160) -> str:
    [found] = [each for each in screen(beam, width=width).splitlines() if beam.beam_id[:8] in each]
    return re.sub(r"\s+", " ", found).strip()


def test_a_running_beam_in_one_line() -> None:
    end = datetime.fromtimestamp(NOW + 754, timezone.utc).astimezone().strftime("%H:%M")
    expected = f"running 70010001 70010001_beam_1 ███░░░░░░░░░ 25.0 % 5/18 12:34 min {end} 12 s"
    assert line(BEAM).startswith(expected)
    assert line(BEAM).endswith("local simulating, simulation_running")


def test_a_failed_beam_says_why() -> None:
    failed = TopBeam("c", "c_beam_1", "local", "failed", "output_error", run=3, progress_ratio=1.0)
    assert "output_error, run 3" in line(failed)


def test_a_beam_that_only_its_row_ended_shows_the_status_of_the_row() -> None:
    failed = TopBeam("c", "c_beam_1", "local", "failed", "status", phase="simulating", status="cancelled")
    assert line(failed).endswith("local its row says cancelled, simulating")


def test_unknown_values_are_not_shown_as_zero() -> None:
    assert line(TopBeam("c", "c_beam_1")).count("–") == 7


def test_only_a_finished_beam_shows_100_percent() -> None:
    assert "99.9 %" in line(TopBeam("c", "c_beam_1", estimated_ratio=0.9996))
    assert "100.0 %" in line(TopBeam("c", "c_beam_1", estimated_ratio=1.0))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (61, "1:01 min"),
        (7384, "2:03 h"),
        (200_000, "2 d"),
        (-5, "0 s"),
        (1e300, "115740 d"),
    ],
)
def test_time_left(seconds: float, shown: str) -> None:
    assert f" {shown} " in line(TopBeam("c", "c_beam_1", remaining_seconds=seconds)) + " "


def test_an_end_on_another_day_has_its_date() -> None:
    day = datetime.fromtimestamp(NOW + 86400, timezone.utc).astimezone().strftime("%d %b")
    assert day in line(TopBeam("c", "c_beam_1", expected_end=NOW + 86400))


def test_the_title_counts_states() -> None:
    title = screen(BEAM, TopBeam("c", "x", state="failed"), TopBeam("c", "y", state="odd")).splitlines()[0]
    assert "http://there  3 beams  1 failed  1 running  1 odd" in title


def test_the_page_uses_the_singular_for_one_beam() -> None:
    assert "http://there  1 beam  1 running" in screen(BEAM).splitlines()[0]
    assert "0 of 1 beam: find 'x'" in screen(BEAM, view=TopView(text="x"))


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_the_state_is_always_there(width: int) -> None:
    text = screen(BEAM, width=width, height=10)
    assert all(get_cwidth(each) <= width for each in text.splitlines())
    assert len(text.splitlines()) == 10
    assert "run" in text


@pytest.mark.parametrize("width", [60, 80, 110, 140])
def test_narrow_terminals_cut_the_beginning_of_ids_and_the_end_of_remarks(width: int) -> None:
    case = "1.2.840.10008.5.1.4.1.1.481.8.70010001"
    failed = TopBeam(
        case, f"{case}_beam_12", "local", "unreachable", "out_of_memory", progress_ratio=0.5, status="failed"
    )
    text = screen(failed, width=width, height=8)
    assert "unreachable" in text
    assert "50.0 %" in text
    assert "_beam_12" in text
    wide = TopBeam("환자", "환자 01_재계획_환자 01_재계획_환자 01_재계획_빔_2", state="running")
    assert "빔_2" in screen(wide, width=60, height=8)


def test_long_lists_scroll_and_say_how_much_is_hidden() -> None:
    beams = [TopBeam("c", f"c_beam_{number}") for number in range(30)]
    view = TopView("case", top=5)
    text = screen(*beams, height=14, view=view)
    assert "c_beam_5 " in text
    assert "c_beam_14 " in text
    assert "c_beam_4 " not in text
    assert "(5 above, 15 below)" in text
    view.top = 1000
    assert "(20 above, 0 below)" in screen(*beams, height=14, view=view)
    assert view.top == 20


def test_the_second_line_shows_trouble_or_else_the_filter() -> None:
    view = TopView(text="x", state="failed")
    assert "0 of 2 beams: find 'x', state failed" in screen(BEAM, BEAM, view=view)
    assert "not up to date: no answer in time" in screen(BEAM, view=view, trouble="no answer\nin time")
    assert "find: x_" in screen(BEAM, view=TopView(text="x", editing=True))
    assert "no column" in screen(BEAM, note="no column")


def test_markup_in_ids_is_shown_as_it_is() -> None:
    assert "[bold]x[/]" in screen(TopBeam("[bold]x[/]", "c_beam_1"))
