from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.cli.top.beams import TopBeam
from exporter.cli.top.readers import ApiReader, FirstReader, TableReader, Unavailable, local_url
from exporter.config import DatabaseSettings, settings_from
from exporter.database.table import ProgressUpdate
from exporter.privacy.identifiers import PlainIdentifiers
from tests.support import communicator_db as db
from tests.support.api import StandIn, beam
from tests.support.sshd import free_port

NOW = 1_800_000_000.0


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn({"at": NOW, "beams": [beam("c", "c_beam_1")], "summary": {}}) as server:
        yield server


def trouble(url: str) -> str:
    reader = ApiReader(url)
    try:
        with pytest.raises(Unavailable) as caught:
            reader.read()
    finally:
        reader.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestApi:
    def test_beams_of_a_running_exporter(self, api: StandIn) -> None:
        reader = ApiReader(f"127.0.0.1:{api.port}")
        beam_list = reader.read()
        reader.close()
        assert (beam_list.at, beam_list.beams, beam_list.origin) == (
            NOW,
            (TopBeam("c", "c_beam_1", "local", "running"),),
            api.url,
        )
        assert api.asked == [("/api/v1/beams", None)]

    def test_a_password_is_used_and_not_shown(self, api: StandIn) -> None:
        reader = ApiReader(f"http://me:hunter2@127.0.0.1:{api.port}/")
        beam_list = reader.read()
        reader.close()
        assert api.asked[0][1] == "Basic " + base64.b64encode(b"me:hunter2").decode()
        assert "hunter2" not in beam_list.origin
        api.status = 401
        assert "hunter2" not in trouble(f"http://me:hunter2@127.0.0.1:{api.port}")

    def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(
        self, api: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        reader = ApiReader(api.url)
        assert len(reader.read().beams) == 1
        reader.close()

    @pytest.mark.parametrize(("status", "says"), [(404, "answers 404"), (302, "answers 302"), (401, "--password-file")])
    def test_an_error_status_of_the_server_is_reported(self, api: StandIn, status: int, says: str) -> None:
        api.status = status
        assert says in trouble(api.url)

    @pytest.mark.parametrize(
        "answer", [b"<html>", {"beams": 3}, b"\xff\xfe", b"[" * 100_000, b'{"at": ' + b"9" * 5000 + b"}"]
    )
    def test_an_answer_that_is_not_a_list_of_beams_is_reported(self, api: StandIn, answer: object) -> None:
        api.answer = answer
        assert "no list of beams" in trouble(api.url)

    def test_a_refused_connection_is_reported(self) -> None:
        assert "no exporter answers" in trouble(f"http://127.0.0.1:{free_port()}")

    def test_a_server_that_does_not_answer_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("exporter.cli.top.readers._READ_SECONDS", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            assert "no answer in time" in trouble(f"http://127.0.0.1:{silent.getsockname()[1]}")

    @pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port", "http://[x", ""])
    def test_an_invalid_url_is_refused(self, url: str) -> None:
        with pytest.raises(Unavailable, match="not a URL"):
            ApiReader(url)

    @pytest.mark.parametrize(
        ("address", "url"),
        [
            ("127.0.0.1:10813", "http://127.0.0.1:10813"),
            (":10813", "http://127.0.0.1:10813"),
            ("[::]:1", "http://[::1]:1"),
            ("localhost:1", "http://localhost:1"),
        ],
    )
    def test_a_listen_address_is_reached_on_this_machine(self, address: str, url: str) -> None:
        assert local_url(address) == url


class TestTable:
    def test_rows_of_the_newest_revision(self, tmp_path: Path) -> None:
        path = db.make(tmp_path / "mqi.db")
        for beam_id, status, progress in (
            ("c_1", "simulation_running", 53.9),
            ("c_2", "pending", 0.0),
            ("c_3", "completed", 100.0),
            ("c_4", "failed", 40.0),
        ):
            db.add(path, beam_id, status)
            db.execute(path, "UPDATE beams SET progress = ? WHERE beam_id = ?", progress, beam_id)
        db.add(path, "../c_5")
        reader = TableReader(DatabaseSettings(path=path))
        beam_list = reader.read()
        reader.close()
        assert {(each.beam_id, each.state, each.status, each.ratio) for each in beam_list.beams} == {
            ("c_1", "running", "simulation_running", 0.539),
            ("c_2", "waiting", "pending", 0.0),
            ("c_3", "succeeded", "completed", 1.0),
            ("c_4", "failed", "failed", 0.4),
        }
        assert (beam_list.origin, beam_list.note) == (str(path), "")

    def test_a_table_of_the_plans_revision_before_and_after_the_migration(self, tmp_path: Path) -> None:
        path = db.make(tmp_path / "mqi.db", db.PLAN_BEAMS)
        db.add(path, "70010001_2025042401440800", "csv_interpreting", "70010001")
        reader = TableReader(DatabaseSettings(path=path))
        beam_list = reader.read()
        assert "mqi-exporter migrate" in beam_list.note
        assert (beam_list.beams[0].ratio, beam_list.beams[0].state) == (None, "waiting")
        table = reader._table
        table.migrate()
        table.write([ProgressUpdate("70010001_2025042401440800", 27.78)])
        beam_list = reader.read()
        reader.close()
        assert beam_list.note == ""
        assert (beam_list.beams[0].ratio, beam_list.beams[0].state) == (0.2778, "running")

    def test_the_statuses_of_the_configuration_are_used(self, tmp_path: Path) -> None:
        path = db.make(tmp_path / "mqi.db")
        db.add(path, "c_1", "done")
        db.add(path, "c_2", "calculating")
        settings = settings_from(
            f"base_directory: /x\ndatabase: {{path: {path}}}\ndiscovery: {{terminal_statuses: [done], "
            "completed_statuses: [done], simulating_statuses: [calculating]}",
            "test",
        )
        reader = TableReader(DatabaseSettings(path=path), settings)
        assert {(each.beam_id, each.state) for each in reader.read().beams} == {
            ("c_1", "succeeded"),
            ("c_2", "running"),
        }
        reader.close()

    def test_ids_pass_through_the_identifiers(self, tmp_path: Path) -> None:
        class Hidden(PlainIdentifiers):
            def case(self, case_id: str) -> str:
                return "CASE"

            def beam(self, beam_id: str) -> str:
                return "BEAM"

            def path(self, path: str) -> str:
                return "PATH"

            def text(self, text: str) -> str:
                return "TEXT"

        path = db.make(tmp_path / "mqi.db")
        db.add(path, "secret_1", case_id="secret")
        reader = TableReader(DatabaseSettings(path=path), identifiers=Hidden())
        beam_list = reader.read()
        reader.close()
        assert "secret" not in str(beam_list)

    def test_an_unreadable_database_is_reported(self, tmp_path: Path) -> None:
        reader = TableReader(DatabaseSettings(path=tmp_path / "none.db"))
        with pytest.raises(Unavailable, match="never created"):
            reader.read()


class TestFirst:
    def test_the_database_is_read_with_a_note_if_the_exporter_does_not_answer(
        self, api: StandIn, tmp_path: Path
    ) -> None:
        path = db.make(tmp_path / "mqi.db")
        db.add(path, "c_1")
        reader = FirstReader([ApiReader(api.url), TableReader(DatabaseSettings(path=path))])
        assert reader.read().origin == api.url
        api.stop()
        beam_list = reader.read()
        assert beam_list.origin == str(path)
        assert "no exporter answers" in beam_list.note
        api.start()
        assert reader.read().origin == api.url
        path.unlink()
        api.stop()
        with pytest.raises(Unavailable, match=r"no exporter answers[\s\S]*never created"):
            reader.read()
        reader.close()
