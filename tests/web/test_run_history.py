"""``/api/v1/runs``: the history of runs as JSON, by id or by pseudonym."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from exporter.persistence.history import RunHistory
from exporter.persistence.store import StateStore
from exporter.privacy.encryption import Encryption
from exporter.privacy.pseudonyms import PseudonymKey, Pseudonyms
from exporter.web.openapi import openapi
from tests.persistence.test_history import NOW, RUNS
from tests.persistence.test_store import changes
from tests.web.site import Site, serve

PATH = "/api/v1/runs"
KEY = PseudonymKey.of(b"k" * 40)


def make_history(folder: Path, encryption: Encryption | None = None) -> RunHistory:
    store = StateStore(folder / "state.db", encryption)
    store.write(changes({}, runs=RUNS))
    store.close()
    return RunHistory(store.path, encryption)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve(history=make_history(tmp_path)) as site:
        yield site


def ask(site: Site, query: str = "", status: int = 200) -> Any:
    answer = site.get(f"{PATH}{query}")
    assert answer.status_code == status
    description = openapi("1.2.3")
    schema = description["paths"][PATH]["get"]["responses"][str(status)]["content"]["application/json"]["schema"]
    said = answer.json()
    Draft202012Validator({**schema, "components": description["components"]}).validate(said)
    return said


def beams(said: Any) -> list[tuple[str, int]]:
    return [(run["beam_id"], run["run"]) for run in said["runs"]]


def test_every_run_has_its_numbers_newest_first(site: Site) -> None:
    said = ask(site)
    assert beams(said) == [("Doe_1", 2), ("Roe_1", 1), ("Doe_1", 1)]
    first = said["runs"][-1]
    assert (first["batches"], first["particles"], first["seconds_per_batch"]) == (18, 49350, 10.5)
    assert (first["engine_total_seconds"], first["output_size_bytes"]) == (199.5, 1024)
    assert said["runs"][1]["reason"] == "cuda"


def test_case_time_and_number_choose(site: Site) -> None:
    assert beams(ask(site, "?case=Doe")) == [("Doe_1", 2), ("Doe_1", 1)]
    assert beams(ask(site, "?case=nobody")) == []
    assert beams(ask(site, f"?since={NOW - 200:.0f}")) == [("Doe_1", 2), ("Roe_1", 1)]
    assert beams(ask(site, "?limit=1")) == [("Doe_1", 2)]


@pytest.mark.parametrize("query", ["since=yesterday", "limit=0", "limit=many", "limit=99999999999", "limit=10001"])
def test_a_parameter_that_cannot_be_used_is_refused(site: Site, query: str) -> None:
    said = ask(site, f"?{query}", 400)
    assert said["error"].startswith(query.split("=", maxsplit=1)[0])


def test_a_client_that_has_the_answer_gets_304(site: Site) -> None:
    etag = site.get(PATH).headers["etag"]
    assert site.get(PATH, **{"if-none-match": etag}).status_code == 304


def test_without_a_state_file_there_is_no_history() -> None:
    with serve() as site:
        assert ask(site, status=404) == {"error": "no history of runs is kept; state.file turns it on"}


def test_a_history_that_cannot_be_read_is_503(tmp_path: Path) -> None:
    with serve(history=RunHistory(tmp_path / "state.db")) as site:
        assert ask(site, status=503) == {"error": "the history of runs does not exist yet"}


def test_pseudonyms_are_shown_and_an_id_finds_nothing(tmp_path: Path) -> None:
    identifiers = Pseudonyms(KEY, cache_size=100)
    with serve(history=make_history(tmp_path, Encryption(KEY.state)), identifiers=identifiers) as site:
        answer = site.get(PATH)
        assert "Doe" not in answer.text
        assert "/dose" not in answer.text
        pseudonym = identifiers.case("Doe")
        assert len(ask(site, f"?case={pseudonym}")["runs"]) == 2
        assert ask(site, "?case=Doe")["runs"] == [], "else a guessed id could be checked"


def test_runs_of_one_beam_are_found_and_saved_for_spreadsheets(site: Site) -> None:
    assert beams(ask(site, "?beam=Doe_1")) == [("Doe_1", 2), ("Doe_1", 1)]
    answer = site.get(f"{PATH}?beam=Roe_1&format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    header, row = answer.text.splitlines()
    assert header.startswith("case_id,beam_id,source,run,outcome,reason,reason_text")
    assert ",Roe_1," in row
