from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli.top.beams import BeamList, TopBeam, from_api
from tests.support.api import beam

NOW = 1_800_000_000.0


def read(*beams: object, at: object = NOW) -> BeamList:
    beam_list = from_api({"at": at, "beams": list(beams)}, 1.0, "there")
    assert beam_list is not None
    return beam_list


def test_the_fields_of_the_api_are_read() -> None:
    [found] = read(
        beam(
            "c",
            "c_beam_1",
            run=2,
            phase="simulating",
            batches_total=18,
            batch_current=5,
            batches_completed=4,
            progress_ratio=5 / 18,
            estimated_ratio=0.25,
            remaining_seconds=60,
            expected_end=NOW + 60,
            last_progress_at=NOW - 3,
            status="simulation_running",
            reason=None,
            some_new_field=[1],
        )
    ).beams
    assert found == TopBeam(
        "c", "c_beam_1", "local", "running", None, 2, "simulating", 18, 5, 4, 5 / 18, 0.25, 60.0, NOW + 60, NOW - 3,
        "simulation_running",
    )  # fmt: skip
    assert found.ratio == 0.25


def test_missing_fields_and_fields_of_another_type_are_unknown() -> None:
    odd = beam("c", "b", state=3, run="1", batches_total=True, progress_ratio="0.5", remaining_seconds=float("nan"))  # type: ignore[arg-type]
    [found] = read(odd, {"case_id": "no beam"}, "no object").beams
    assert found == TopBeam("c", "b", "local")
    assert found.state == "unknown"
    assert found.ratio is None


def test_the_expected_end_follows_from_the_time_left() -> None:
    [found] = read(beam("c", "b", remaining_seconds=60)).beams
    assert found.ends_at(NOW) == NOW + 60
    assert TopBeam("c", "b").ends_at(NOW) is None


def test_an_answer_without_a_time_gets_the_time_of_its_arrival() -> None:
    assert read(at="yesterday").at == 1.0
    assert read(at=NOW).at == NOW


@pytest.mark.parametrize("answer", [None, [], {}, {"beams": {}}, "text", 3])
def test_an_answer_of_another_shape_is_rejected(answer: object) -> None:
    assert from_api(answer, NOW, "there") is None


def test_control_characters_are_replaced() -> None:
    [found] = read(beam("\x1b[2J", "a\nb\x07", reason="\x9b31m", status="\u202egnp")).beams
    texts = f"{found.case_id}{found.beam_id}{found.reason}{found.status}"
    assert texts.isprintable()
    assert "[2J" in texts


def test_as_json_has_the_names_of_the_api() -> None:
    beam_list = read(beam("c", "b", remaining_seconds=60), beam("c", "d", "failed", reason="cuda"))
    said = json.loads(json.dumps(beam_list.as_json(), allow_nan=False))
    assert said["summary"] == {"running": 1, "failed": 1}
    assert said["beams"][0]["expected_end"] == NOW + 60
    assert from_api(said, 0.0, "there") is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(TopBeam.__dataclass_fields__)), JSON))
def test_any_answer_can_be_shown(item: dict[str, object]) -> None:
    beam_list = read({"beam_id": "b", **item})
    json.dumps(beam_list.as_json(), allow_nan=False).encode()
