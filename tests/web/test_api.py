"""The API over real connections; every answer is validated against the served OpenAPI description."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate as validate_openapi
from starlette.applications import Starlette
from starlette.routing import Route

from exporter.beams.dose import EngineTimes
from exporter.beams.labels import PHASE_LABELS, REASON_TEXTS, STATE_LABELS, STATE_MEANINGS
from exporter.beams.snapshot import (
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    EndedRun,
    OutputFile,
    OutputState,
    StoreSnapshot,
)
from exporter.logs.events import FAILURE_REASONS
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.web import routes
from exporter.web.openapi import openapi
from tests.support.process import wait_for
from tests.web.site import Site, serve
from tests.web.store_snapshots import NOW, make_beam, make_full_snapshot, make_snapshot, make_waiting_beam


class BeamStore:
    """A store that shows what the test puts there."""

    def __init__(self, shown: StoreSnapshot) -> None:
        self.shown = shown

    def snapshot(self) -> StoreSnapshot:
        return self.shown


class Hidden(PlainIdentifiers):
    """Identifiers that leave nothing as it was."""

    def case(self, case_id: str) -> str:
        return f"case-{len(case_id)}"

    def beam(self, beam_id: str) -> str:
        return f"beam-{len(beam_id)}"

    def path(self, path: str) -> str:
        return "a path"

    def text(self, text: str) -> str:
        return "a text"

    def status(self, status: str) -> str:
        return "a status"


@pytest.fixture
def store() -> BeamStore:
    return BeamStore(make_full_snapshot())


@pytest.fixture
def site(store: BeamStore) -> Iterator[Site]:
    with serve(snapshot=store.snapshot) as running:
        yield running


def ask(site: Site, path: str) -> Any:
    """The answer as JSON, after it has been held against the description."""
    answer = site.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    validate(said, path)
    return said


def validate(said: Any, path: str, status: int = 200) -> None:
    description = openapi("1.2.3")
    parts = path.split("?", maxsplit=1)[0].split("/")
    template = "/".join([*parts[:4], "{case_id}", "{beam_id}", *parts[6:]]) if len(parts) > 4 else "/".join(parts)
    content = description["paths"][template]["get"]["responses"][str(status)]["content"]
    schema = {**content["application/json"]["schema"], "components": description["components"]}
    Draft202012Validator(schema).validate(said)


def test_the_description_is_valid_and_served(site: Site) -> None:
    said = site.get("/api/v1/openapi.json").json()
    validate_openapi(said)
    assert said == openapi("1.2.3")
    assert said["openapi"] == "3.1.0"


def test_the_description_has_every_path_that_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    served = list[str]()

    def recording(routes: list[Route], **options: Any) -> Starlette:
        served.extend(route.path for route in routes if route.path.startswith("/api/"))
        return Starlette(routes=routes, **options)

    monkeypatch.setattr(routes, "Starlette", recording)
    with serve():
        pass
    described = [path.replace("{case_id}/{beam_id}", "{path:path}") for path in openapi("1.2.3")["paths"]]
    index = {"/api/", "/api/v1", "/api/v1/"}
    assert sorted(set(served) - index) == sorted([*described, "/api/v1/openapi.json"])


def test_beams_of_every_state_are_listed(site: Site, store: BeamStore) -> None:
    said = ask(site, "/api/v1/beams")
    assert [beam["beam_id"] for beam in said["beams"]] == [beam.key.beam_id for beam in store.shown.beams]
    assert {beam["state"] for beam in said["beams"]} == {state.value for state in BeamState}
    assert said["at"] == NOW
    assert said["beams_dropped"] == 3


def test_a_running_beam_has_every_known_value(site: Site, store: BeamStore) -> None:
    store.shown = make_snapshot(make_beam())
    [beam] = ask(site, "/api/v1/beams")["beams"]
    assert beam == {
        "case_id": "70010001",
        "beam_id": "70010001_b1",
        "source": "local",
        "state": "running",
        "state_since": NOW - 300,
        "reason": None,
        "reason_text": None,
        "failure_text": None,
        "waiting_reason": None,
        "waiting_text": None,
        "needs_attention": False,
        "run": 1,
        "dialect": "smc",
        "phase": "simulating",
        "batches_total": 18,
        "batch_current": 5,
        "batches_completed": 4,
        "progress_ratio": 0.2778,
        "estimated_ratio": 0.25,
        "remaining_seconds": 900.0,
        "expected_end": NOW + 900,
        "expected_end_basis": "pace",
        "started_at": NOW - 330,
        "ended_at": None,
        "last_progress_at": NOW - 20,
        "stall_threshold_seconds": 210.0,
        "batch_duration_seconds": 70.0,
        "histories_per_second": 142857.1,
        "particles_per_batch": 10_000_000,
        "particles": 172_000_000,
        "dose_text": None,
        "dose_path": None,
        "dose_dimensions": None,
        "dose_max_gy": None,
        "doses_written": 0,
        "engine_initialization_seconds": None,
        "engine_simulation_seconds": None,
        "engine_output_seconds": None,
        "engine_seconds": None,
        "log_path": "/logs/70010001_b1.log",
        "log_size_bytes": 4711,
        "log_modified_at": NOW - 3,
        "output": "not_configured",
        "output_text": None,
        "output_path": None,
        "output_size_bytes": None,
        "buffered": False,
        "log_unmatched": False,
        "status": "simulation_running",
        "status_text": "simulation running",
        "status_mismatch": False,
        "status_updated_at": None,
        "hpc_job_id": None,
    }


@pytest.mark.parametrize(
    ("reason", "written", "words"),
    [
        ("aborted", True, "the dose file was written before the crash"),
        ("segmentation_fault", True, "the dose file was written before the crash"),
        ("killed", True, "the dose file was written before the run was stopped"),
        ("preempted", True, "the dose file was written before the run was stopped"),
        ("status", True, "the dose file was written before the run was stopped"),
        ("aborted", False, None),
    ],
)
def test_a_failed_beam_tells_whether_its_dose_file_was_written(
    site: Site, store: BeamStore, reason: str, written: bool, words: str | None
) -> None:
    beam = make_beam(
        state=BeamState.FAILED,
        reason=reason,
        dose_path="../data/Dose_dcm/1/a.dcm",
        dose_dimensions="400x400x1",
        dose_max_gy=1.5e-05,
        doses_written=1,
        dose_written_before_failure=written,
        engine_times=EngineTimes(2.674, 8.058, 0.571, 11.993),
    )
    store.shown = make_snapshot(beam)
    [answer] = ask(site, "/api/v1/beams")["beams"]
    assert answer["dose_text"] == words
    assert (answer["dose_path"], answer["dose_dimensions"]) == ("../data/Dose_dcm/1/a.dcm", "400x400x1")
    assert (answer["dose_max_gy"], answer["doses_written"]) == (1.5e-05, 1)
    assert answer["engine_initialization_seconds"] == 2.674
    assert answer["engine_simulation_seconds"] == 8.058
    assert answer["engine_output_seconds"] == 0.571
    assert answer["engine_seconds"] == 11.993
    assert (words or "the dose file was written") in site.client.get("/table").text or words is None


def test_unknown_values_are_null_and_not_zero(site: Site, store: BeamStore) -> None:
    store.shown = make_snapshot(make_waiting_beam())
    [beam] = ask(site, "/api/v1/beams")["beams"]
    unknown = ("phase", "batches_total", "expected_end", "started_at", "log_path", "log_modified_at", "status")
    assert [beam[name] for name in unknown] == [None] * len(unknown)


@pytest.mark.parametrize(
    ("state", "problem", "words"),
    [
        (OutputState.NOT_DUE, None, None),
        (OutputState.PENDING, None, "looking for the dose file"),
        (OutputState.FOUND, None, "dose file found"),
        (OutputState.MISSING, None, "there is no dose file of this run"),
        (
            OutputState.BLOCKED,
            "permission",
            "the dose file cannot be checked: the exporter has no permission to list its folder",
        ),
        (OutputState.BLOCKED, "other", "the dose file cannot be checked: other"),
    ],
)
def test_the_result_of_the_output_check_has_a_text(
    site: Site, store: BeamStore, state: OutputState, problem: str | None, words: str | None
) -> None:
    file = OutputFile("/dose/1.dcm", 4096, NOW) if state is OutputState.FOUND else None
    store.shown = make_snapshot(make_beam(output=state, output_problem=problem, output_file=file))
    [beam] = ask(site, "/api/v1/beams")["beams"]
    assert (beam["output"], beam["output_text"]) == (state.value, words)
    known = ("/dose/1.dcm", 4096) if file else (None, None)
    assert (beam["output_path"], beam["output_size_bytes"]) == known


@pytest.mark.parametrize("reason", FAILURE_REASONS)
def test_every_failure_reason_has_a_text(site: Site, store: BeamStore, reason: str) -> None:
    failed: dict[str, Any] = {"state": BeamState.FAILED, "ended_at": NOW - 5, "remaining_seconds": None}
    failed["row"] = BeamRow(BeamKey("70010001", "70010001_b1"), NOW)
    store.shown = make_snapshot(make_beam(reason=reason, failure_text="the line", **failed))
    [beam] = ask(site, "/api/v1/beams")["beams"]
    assert (beam["reason"], beam["reason_text"]) == (reason, REASON_TEXTS[reason])
    assert "_" not in REASON_TEXTS[reason]
    assert beam["failure_text"] == "the line"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_failure_known_from_the_row_alone_quotes_its_status(site: Site, store: BeamStore, status: str) -> None:
    row = BeamRow(BeamKey("70010001", "70010001_b1"), NOW, status=status)
    by_row = make_beam(state=BeamState.FAILED, reason="status", row=row, ended_at=NOW - 5, remaining_seconds=None)
    by_log = by_row._replace(key=BeamKey("70010001", "by_log"), reason="killed")
    run = EndedRun(row.key, "local", 1, "failed", "status", NOW - 60, NOW, status)
    store.shown = make_snapshot(by_row, by_log, ended=(run, replace(run, status=None)))
    said = ask(site, "/api/v1/beams")
    words = f"MQI Communicator says: {status}; the log does not say why"
    assert [beam["reason_text"] for beam in said["beams"]] == [words, REASON_TEXTS["killed"]]
    assert [run["reason_text"] for run in said["ended"]] == [words, REASON_TEXTS["status"]]


def test_every_state_and_phase_has_a_label() -> None:
    assert STATE_LABELS.keys() == STATE_MEANINGS.keys() == set(BeamState)
    assert list(PHASE_LABELS) == ["loading", "preparing", "simulating", "saving"]
    assert REASON_TEXTS.keys() == set(FAILURE_REASONS)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (BeamState.RUNNING, NOW + 900),
        (BeamState.UNREACHABLE, NOW - 300 + 900),
        (BeamState.STALLED, None),
        (BeamState.EXPIRED, None),
    ],
)
def test_stalled_and_expired_beams_have_no_expected_end(
    site: Site, store: BeamStore, state: BeamState, end: float | None
) -> None:
    store.shown = make_snapshot(make_beam(state=state))
    [beam] = ask(site, "/api/v1/beams")["beams"]
    assert beam["expected_end"] == end


def test_an_unreachable_beam_keeps_its_expected_end_until_that_is_past(site: Site, store: BeamStore) -> None:
    lost = make_beam(state=BeamState.UNREACHABLE, state_since=NOW - 300, remaining_seconds=300.4)
    for moment, end in ((NOW - 1, NOW), (NOW, None), (NOW + 3600, None)):
        store.shown = make_snapshot(lost, make_beam(beam_id="running"), at=moment)
        [beam, _] = ask(site, "/api/v1/beams")["beams"]
        [case] = ask(site, "/api/v1/cases")["cases"]
        assert (beam["expected_end"], beam["remaining_seconds"]) == (end, None)
        assert case["expected_end"] == (None if end is None else moment + 900)


# Questions


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("state=failed", ["failed"]),
        ("state=failed,stalled", ["stalled", "failed"]),
        ("state=failed&state=stalled", ["stalled", "failed"]),
        ("text=KILLED%2C", ["failed"]),
        ("text=hpc1", ["unreachable"]),
        ("case=70010001&state=running", ["running"]),
        ("case=7001", []),
        ("text=nowhere", []),
    ],
)
def test_beams_are_selected_by_state_case_and_text(site: Site, question: str, expected: list[str]) -> None:
    said = ask(site, f"/api/v1/beams?{question}")
    assert [beam["beam_id"] for beam in said["beams"]] == expected
    assert said["summary"]["waiting"] == 1, "the summary is of the whole store"


def test_an_unknown_state_is_refused_and_the_known_ones_are_listed(site: Site) -> None:
    answer = site.get("/api/v1/beams?state=happy")
    assert answer.status_code == 400
    assert "'happy' is unknown; states: waiting, starting, running" in answer.json()["error"]


def ended(beam_id: str, outcome: str, at: float, *, run: int = 1) -> EndedRun:
    reason = "cuda" if outcome == "failed" else None
    return EndedRun(BeamKey("70010001", beam_id), "local", run, outcome, reason, at - 60, at)


def test_ended_runs_are_listed_and_those_of_today_counted_once(site: Site, store: BeamStore) -> None:
    day = time.localtime(NOW)
    noon = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 12, 0, 0, 0, 0, -1))
    still_shown = make_beam(
        beam_id="b", state=BeamState.SUCCEEDED, run_number=2, ended_at=noon - 60, remaining_seconds=None
    )
    seen_ended = make_beam(beam_id="c", state=BeamState.FAILED, reason="killed", ended_at=noon - 90)
    store.shown = make_snapshot(
        still_shown,
        seen_ended,
        at=noon,
        ended=(
            ended("a", "succeeded", noon - 86400),
            ended("a", "succeeded", noon - 100),
            ended("b", "failed", noon - 99),
            ended("b", "succeeded", noon - 60, run=2),
        ),
    )
    said = ask(site, "/api/v1/beams")
    assert [(run["beam_id"], run["outcome"]) for run in said["ended"]] == [
        ("a", "succeeded"),
        ("a", "succeeded"),
        ("b", "failed"),
        ("b", "succeeded"),
    ]
    assert (said["summary"]["done_today"], said["summary"]["failed_today"]) == (2, 2)
    only_failed = ask(site, "/api/v1/beams?state=failed")
    assert [run["reason_text"] for run in only_failed["ended"]] == [REASON_TEXTS["cuda"]]


def test_one_beam_comes_with_the_last_lines_of_its_log(site: Site, store: BeamStore) -> None:
    store.shown = make_snapshot(make_beam(recent=b"one\ntwo\n<script>three</script>"))
    said = ask(site, "/api/v1/beams/70010001/70010001_b1")
    assert said["recent_lines"] == ["one", "two", "<script>three</script>"]
    assert said["beam"]["batch_current"] == 5


@pytest.mark.parametrize(
    "key",
    [
        BeamKey("a/b", "c/d"),
        BeamKey("..", "."),
        BeamKey("50%", "?#&+ "),
        BeamKey("<script>alert(1)</script>", '"><img onerror=x>'),
        BeamKey("Fälle", "\N{SNOWMAN}"),
        BeamKey("case\udcff", "beam"),
    ],
)
def test_a_beam_is_found_by_any_id(site: Site, store: BeamStore, key: BeamKey) -> None:
    store.shown = make_snapshot(make_beam(), make_beam()._replace(key=key))
    shown = ask(site, "/api/v1/beams")["beams"][1]
    # The client would resolve dots on its own: they are written as escapes, as browsers keep them.
    path = "/".join(quote(shown[name], safe="").replace(".", "%2E") for name in ("case_id", "beam_id"))
    assert ask(site, f"/api/v1/beams/{path}")["beam"] == shown


@pytest.mark.parametrize("path", ["70010001/nobody", "70010001", "70010001/70010001_b1/more", ""])
def test_an_unknown_beam_or_path_is_404_in_json(site: Site, path: str) -> None:
    answer = site.get(f"/api/v1/beams/{path}")
    assert answer.status_code == 404
    assert "there is no such" in answer.json()["error"]


def test_a_case_has_the_progress_and_states_of_its_beams(site: Site, store: BeamStore) -> None:
    done = make_beam(beam_id="done", state=BeamState.SUCCEEDED, estimated_ratio=1.0, remaining_seconds=None)
    store.shown = make_snapshot(make_beam(), done, make_beam("other", "o1", state=BeamState.STALLED))
    first, second = ask(site, "/api/v1/cases")["cases"]
    assert first["beam_ids"] == ["70010001_b1", "done"]
    assert first["states"]["running"] == first["states"]["succeeded"] == 1
    assert (first["progress_ratio"], first["expected_end"], first["started_at"]) == (0.625, NOW + 900, NOW - 330)
    assert (second["case_id"], second["expected_end"]) == ("other", None)


def test_sources_and_the_database_have_their_health_and_counters(site: Site) -> None:
    said = ask(site, "/api/v1/sources")
    assert [(source["name"], source["up"], source["beams"]) for source in said["sources"]] == [
        ("local", True, 7),
        ("hpc1", False, 1),
        ("hpc2", None, 0),
    ]
    assert said["sources"][1]["errors"] == {"timeout": 2}
    assert said["database"] == {
        "up": True,
        "pending_updates": 1,
        "last_write_at": NOW - 2,
        "writes": {"written": 7, "locked": 1},
    }


def test_the_database_is_null_without_one(site: Site, store: BeamStore) -> None:
    store.shown = make_snapshot()
    assert ask(site, "/api/v1/sources")["database"] is None


def test_every_id_path_and_text_passes_the_identifiers() -> None:
    secret = "geheim"
    key = BeamKey(f"{secret}1", f"{secret}22")
    beam = make_beam(
        state=BeamState.FAILED,
        reason="error",
        failure_text=secret,
        log_path=secret,
        recent=secret.encode(),
        output_file=OutputFile(secret, 1, NOW),
    )._replace(
        key=key,
    )
    beam = beam._replace(row=replace(beam.row, key=key, hpc_job_id=secret, status=secret, beam_path=secret))
    shown = make_snapshot(beam, ended=(replace(ended("x", "failed", NOW), key=key),))
    with serve(snapshot=lambda: shown, identifiers=Hidden()) as site:
        one = "/api/v1/beams/case-7/beam-8"
        paths = ("/api/v1/beams", "/api/v1/cases", "/api/v1/sources", one, f"{one}/explain")
        assert [path for path in paths if secret in json.dumps(ask(site, path))] == []
        assert site.get(f"/api/v1/beams/{key.case_id}/{key.beam_id}").status_code == 404


def test_a_beam_is_explained_by_its_evidence_and_rules(site: Site) -> None:
    answer = ask(site, "/api/v1/beams/70010001/running/explain")
    explanation = answer["explanation"]
    assert (explanation["beam_id"], explanation["state"], explanation["state_rule"]) == (
        "running",
        "running",
        "progress",
    )
    assert (explanation["log"], explanation["log_rule"]) == ("current", "log_written_while_watched")
    assert [(path["source"], path["found"], path["text"]) for path in answer["paths"]] == [
        ("local", "log", "this log is followed"),
        ("hpc1", "missing", "nothing is there"),
    ]
    titles = [section["title"] for section in answer["sections"]]
    assert titles == ["State", "Row", "Where the log may be", "Log", "Dose file"]
    assert all(section["lines"] for section in answer["sections"])
    assert "The log shows progress. [progress]" in answer["sections"][0]["lines"]


def test_every_state_can_be_explained(site: Site, store: BeamStore) -> None:
    for beam in store.snapshot().beams:
        ask(site, f"/api/v1/beams/{quote(beam.key.case_id, safe='')}/{quote(beam.key.beam_id, safe='')}/explain")


@pytest.mark.parametrize("path", ["70010001/none/explain", "70010001/running/explain/more", "70010001/running/why"])
def test_what_cannot_be_explained_is_404_in_json(site: Site, path: str) -> None:
    answer = site.get(f"/api/v1/beams/{path}")
    assert answer.status_code == 404
    validate(answer.json(), "/api/v1/beams/70010001/running/explain", 404)


# ETag, compression, methods

PATHS = ("/api/v1/beams", "/api/v1/cases", "/api/v1/sources", "/api/v1/beams/70010001/running", "/api/v1/openapi.json")


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_has_the_answer_gets_304(site: Site, path: str) -> None:
    first = site.get(path)
    etag = first.headers["etag"]
    assert etag.startswith('"')
    assert first.headers["cache-control"] == "no-cache"
    for condition in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        again = site.get(path, **{"if-none-match": condition})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert again.headers["vary"] == "Accept-Encoding"
    assert site.get(path, **{"if-none-match": '"x"'}).content == first.content


def test_time_alone_does_not_change_an_answer(site: Site, store: BeamStore) -> None:
    ended_beam = make_beam(state=BeamState.SUCCEEDED, remaining_seconds=None, ended_at=NOW - 5)
    store.shown = make_snapshot(ended_beam, make_waiting_beam())
    first = site.get("/api/v1/beams")
    store.shown = replace(store.shown, at=NOW + 1)
    second = site.get("/api/v1/beams")
    assert (second.headers["etag"], second.content) == (first.headers["etag"], first.content)
    assert second.json()["at"] == NOW

    store.shown = make_snapshot(ended_beam._replace(log_size_bytes=1), make_waiting_beam(), at=NOW + 2)
    third = site.get("/api/v1/beams")
    assert third.headers["etag"] != first.headers["etag"]
    assert third.json()["at"] == NOW + 2


def test_a_beam_on_schedule_keeps_its_expected_end(site: Site, store: BeamStore) -> None:
    def at(moment: float) -> BeamView:
        store.shown = make_snapshot(make_beam(remaining_seconds=900.0 - moment), at=NOW + moment)
        [beam] = ask(site, "/api/v1/beams")["beams"]
        return beam["expected_end"]  # type: ignore[no-any-return]

    assert at(0.0) == at(0.73) == at(12.34)


def test_compressed_answers_have_an_etag_of_their_own(site: Site) -> None:
    plain = site.get("/api/v1/beams", **{"accept-encoding": "identity"})
    with site.client.stream("GET", "/api/v1/beams", headers={"accept-encoding": "gzip"}) as compressed:
        raw = b"".join(compressed.iter_raw())
    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert compressed.headers["etag"] != plain.headers["etag"]


def test_head_answers_without_a_body_and_other_methods_are_refused(site: Site) -> None:
    head = site.client.head("/api/v1/beams")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == site.get("/api/v1/beams").headers["etag"]
    assert site.client.post("/api/v1/beams").status_code == 405
    assert site.client.delete("/api/v1/beams/70010001/running").status_code == 405


def test_a_failing_snapshot_is_answered_with_500_and_counted() -> None:
    def fail() -> StoreSnapshot:
        raise RuntimeError("no store")

    with serve(snapshot=fail) as site:
        assert httpx.get(f"http://{site.server.address}/api/v1/beams").status_code == 500
        wait_for(lambda: site.errors == ["web"], "the error counted")
