"""``/api/v1/names``: who may see ids, and that every request is logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import bcrypt
import httpx
import pytest

from exporter.beams.snapshot import BeamKey, EndedRun, StoreSnapshot
from exporter.privacy.pseudonyms import PseudonymKey, Pseudonyms
from exporter.web.reveal import IdReveal
from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.logs import recorded_logs
from tests.support.process import PATIENCE_SECONDS
from tests.web.site import serve
from tests.web.store_snapshots import NOW, make_beam, make_snapshot
from tests.web.test_api import validate

PATH = "/api/v1/names"
SHOWN = Pseudonyms(PseudonymKey.of(b"correct horse battery staple, and some more"))
PASSWORD = "correct horse"


def store() -> StoreSnapshot:
    ended = EndedRun(BeamKey("Roe", "Roe_1"), "local", 1, "succeeded", None, NOW - 100, NOW - 50)
    return replace(make_snapshot(make_beam("Doe", "Doe_1"), make_beam("Doe", "Doe_2")), ended=(ended,))


@pytest.fixture
def web_config(tmp_path: Path) -> ActiveWebConfig:
    path = tmp_path / "web.yaml"
    path.touch(mode=0o600)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    path.write_text(f"basic_auth_users: {{physicist: '{hashed}', prometheus: '{hashed}'}}\n", encoding="utf-8")
    return ActiveWebConfig(path)


@contextmanager
def served(web_config: ActiveWebConfig, *users: str, redacted: bool = True) -> Iterator[tuple[str, IdReveal]]:
    names = IdReveal(store, SHOWN, users, redacted=redacted)
    with serve(snapshot=store, identifiers=SHOWN, id_reveal=names, web_config=web_config) as site:
        yield f"http://{site.server.address}", names


def ask(address: str, user: str = "physicist", method: str = "GET", path: str = PATH) -> httpx.Response:
    answer = httpx.request(method, address + path, auth=(user, PASSWORD), timeout=PATIENCE_SECONDS)
    if (method, path) == ("GET", PATH):
        validate(answer.json(), path, answer.status_code)
    return answer


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
    ids=str,
)
def test_a_page_of_another_site_gets_no_ids_though_its_browser_has_the_password(
    web_config: ActiveWebConfig, headers: dict[str, str]
) -> None:
    with served(web_config, "physicist") as (address, names), recorded_logs() as lines:
        answer = httpx.get(address + PATH, auth=("physicist", PASSWORD), headers=headers, timeout=PATIENCE_SECONDS)
        assert ask(address).status_code == 200
        assert names.counts() == {"shown": 1, "refused": 1}
    assert (answer.status_code, answer.json()) == (403, {"error": "a page of another site asked for this"})
    assert "ids behind pseudonyms refused: a page of another site asked" in [line["event"] for line in lines]


def test_a_permitted_user_gets_the_ids_of_all_beams_and_ended_runs(web_config: ActiveWebConfig) -> None:
    with served(web_config, "physicist") as (address, _):
        answer = ask(address)
    assert answer.json() == {
        "cases": {SHOWN.case(case): case for case in ("Doe", "Roe")},
        "beams": {SHOWN.beam(beam): beam for beam in ("Doe_1", "Doe_2", "Roe_1")},
    }
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


def test_other_users_are_refused(web_config: ActiveWebConfig) -> None:
    with served(web_config, "physicist") as (address, _):
        answer = ask(address, "prometheus")
        assert (answer.status_code, answer.headers["cache-control"]) == (403, "no-store")
        assert "Doe" not in answer.text
        assert ask(address, "prometheus", path="/api/v1/beams").status_code == 200
        assert httpx.get(address + PATH, timeout=PATIENCE_SECONDS).status_code == 401
        assert ask(address, "physicist", "HEAD").content == b""


def test_every_request_for_ids_is_logged_with_its_user_and_counted(web_config: ActiveWebConfig) -> None:
    with served(web_config, "physicist") as (address, names), recorded_logs() as logs:
        assert names.counts() == {"shown": 0, "refused": 0}
        ask(address)
        ask(address, "prometheus")
        assert names.counts() == {"shown": 1, "refused": 1}
    about = {"address": "127.0.0.1", "log_level": "warning"}
    assert logs == [
        {"event": "ids behind pseudonyms shown", "user": "physicist", "beams": 3, **about},
        {"event": "ids behind pseudonyms refused", "user": "prometheus", **about},
    ]


def test_ids_are_not_offered_when_no_user_may_see_them(web_config: ActiveWebConfig) -> None:
    with served(web_config) as (address, names):
        assert ask(address).status_code == 404
        assert names.counts() == {"shown": 0, "refused": 0}
        assert 'id="reveal"' not in ask(address, path="/").text


def test_ids_are_not_offered_without_pseudonyms(web_config: ActiveWebConfig) -> None:
    with served(web_config, "physicist", redacted=False) as (address, names):
        assert ask(address).status_code == 404
        assert names.counts() == {}
        assert 'id="reveal"' not in ask(address, path="/").text


def test_a_request_with_a_real_id_is_answered_like_one_with_an_unknown_id(web_config: ActiveWebConfig) -> None:
    """Nobody learns from the API whether somebody is a patient here."""
    with served(web_config) as (address, _):
        for known, unknown in (
            ("/api/v1/beams?case=Doe", "/api/v1/beams?case=Nobody"),
            ("/api/v1/beams?text=Doe", "/api/v1/beams?text=Nobody"),
            ("/api/v1/beams/Doe/Doe_1", "/api/v1/beams/Nobody/Nobody_1"),
        ):
            one, other = ask(address, path=known), ask(address, path=unknown)
            assert (one.status_code, one.text) == (other.status_code, other.text)
        shown = ask(address, path=f"/api/v1/beams?case={SHOWN.case('Doe')}").json()
        assert [beam["beam_id"] for beam in shown["beams"]] == [SHOWN.beam("Doe_1"), SHOWN.beam("Doe_2")]
        assert ask(address, path=f"/api/v1/beams/{SHOWN.case('Doe')}/{SHOWN.beam('Doe_1')}").status_code == 200
