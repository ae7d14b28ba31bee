"""`mqi-exporter dashboards push` against a stand-in for Grafana's HTTP API, and the exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exporter.cli.main import main
from exporter.process.bundled_files import ALERTS, DASHBOARDS, RUNBOOKS, bundled_files
from tests.support.receivers import InThread

TOKEN = "glsa_0123456789"
Json = dict[str, Any]


class StandIn(InThread):
    """What of Grafana's API the command uses, as Grafana 12 answers it (its documented paths, codes and bodies)."""

    def __init__(self) -> None:
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), self._handler()))
        self.dashboards: dict[str, Json] = {}
        self.folders: dict[str, str] = {}
        self.in_folder: dict[str, str] = {}
        self.provisioned: set[str] = set()
        self.writes: list[str] = []
        self.answer: tuple[int, bytes] | None = None
        self.token: str | None = TOKEN

    def get(self, path: str) -> tuple[int, Json]:
        kind, _, uid = path.removeprefix("/api/").rpartition("/")
        if kind == "folders" and uid in self.folders:
            return 200, {"uid": uid, "title": self.folders[uid]}
        if kind == "dashboards/uid" and uid in self.dashboards:
            meta = {"folderUid": self.in_folder.get(uid, ""), "provisioned": uid in self.provisioned}
            return 200, {"dashboard": self.dashboards[uid], "meta": meta}
        return 404, {"message": "Dashboard not found" if kind != "folders" else "folder not found"}

    def post(self, path: str, body: Json) -> tuple[int, Json]:
        self.writes.append(path)
        if path == "/api/folders":
            self.folders[body["uid"]] = body["title"]
            return 200, {"uid": body["uid"]}
        assert path == "/api/dashboards/db"
        uid = body["dashboard"]["uid"]
        there = self.dashboards.get(uid)
        if there is not None and not body["overwrite"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        if body["folderUid"] and body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        version = there["version"] + 1 if there else 1
        self.dashboards[uid] = {**body["dashboard"], "id": 17, "version": version}
        self.in_folder[uid] = body["folderUid"]
        return 200, {"status": "success", "uid": uid, "version": version, "url": f"/d/{uid}/x"}

    def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:  # noqa: N805 -- self is the request's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(lambda: stand_in.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(lambda: stand_in.post(self.path, body))

            def _answer(self, what: Any) -> None:
                if stand_in.answer is not None:
                    code, data = stand_in.answer
                elif stand_in.token and self.headers.get("Authorization") != f"Bearer {stand_in.token}":
                    code, data = 401, b'{"message": "Invalid API key"}'
                else:
                    code, answer = what()
                    data = json.dumps(answer).encode()
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "https://elsewhere.example/login")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def grafana() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def push(grafana: StandIn, token: Path, *more: str | Path) -> Result:
    arguments = ["dashboards", "push", "--grafana.url", grafana.url, "--grafana.token-file", token, *more]
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_all_dashboards_arrive_in_a_folder_of_their_own(grafana: StandIn, token: Path) -> None:
    result = push(grafana, token)
    assert result.exit_code == 0, result.output
    assert grafana.folders == {"mqi": "MQI"}
    assert grafana.in_folder == dict.fromkeys(("mqi-beams", "mqi-case", "mqi-exporter"), "mqi")
    assert re.findall(r"^(.+): created  (\S+)$", result.output, re.MULTILINE) == [
        ("MQI beams", f"{grafana.url}/d/mqi-beams"),
        ("MQI case", f"{grafana.url}/d/mqi-case"),
        ("MQI exporter", f"{grafana.url}/d/mqi-exporter"),
    ]


def test_unchanged_dashboards_are_skipped_and_changed_ones_replaced(grafana: StandIn, token: Path) -> None:
    push(grafana, token)
    grafana.dashboards["mqi-case"]["title"] = "Mine"
    grafana.writes.clear()
    result = push(grafana, token)
    assert re.findall(r": (\w+)  ", result.output) == ["unchanged", "updated", "unchanged"]
    assert grafana.writes == ["/api/dashboards/db"]
    assert grafana.dashboards["mqi-case"]["title"] == "MQI case"
    assert grafana.dashboards["mqi-case"]["version"] == 2


def test_a_dashboard_in_another_folder_is_moved(grafana: StandIn, token: Path) -> None:
    push(grafana, token, "--folder", "")
    assert set(grafana.in_folder.values()) == {""}
    assert push(grafana, token, "--folder", "Physik & Co").exit_code == 0
    assert grafana.folders == {"physik---co": "Physik & Co"}
    assert set(grafana.in_folder.values()) == {"physik---co"}


def test_a_dry_run_says_what_would_change_and_changes_nothing(grafana: StandIn, token: Path) -> None:
    result = push(grafana, token, "--dry-run")
    assert result.exit_code == 0
    assert result.output.count("would be created") == 3
    assert grafana.writes == []


def test_own_dashboard_files_can_be_pushed(grafana: StandIn, token: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"uid": "own", "title": "Our own", "panels": []}', encoding="utf-8")
    assert push(grafana, token, own).output == f"Our own: created  {grafana.url}/d/own\n"
    assert set(grafana.dashboards) == {"own"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, b'{"message": "You\'ll need additional permissions"}'), "needs the role Editor"),
        ((500, b'{"message": "database is locked"}'), "Grafana answers 500 (database is locked)"),
        ((502, b"<html>bad gateway</html>"), "Grafana answers 502"),
        ((200, b"<html>another program</html>"), "does not answer as a Grafana does"),
        ((404, b"<html>not found</html>"), "is http://127.0.0.1"),
        ((302, b""), "points elsewhere (https://elsewhere.example/login)"),
    ],
)
def test_a_failed_request_is_one_line_that_says_what_to_do(
    grafana: StandIn, token: Path, answer: tuple[int, bytes], said: str
) -> None:
    grafana.answer = answer
    result = push(grafana, token)
    assert result.exit_code == 1
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert TOKEN not in result.output


def test_a_rejected_token_is_reported(grafana: StandIn, token: Path) -> None:
    grafana.token = "another"
    result = push(grafana, token)
    assert "does not accept the token (Invalid API key)" in result.output
    assert result.exit_code == 1


def test_a_dashboard_that_grafana_loads_from_a_file_is_not_replaced(grafana: StandIn, token: Path) -> None:
    push(grafana, token)
    grafana.provisioned.add("mqi-beams")
    grafana.dashboards["mqi-beams"]["title"] = "another"
    result = push(grafana, token)
    assert "loads it from a file (provisioning)" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("url", "cause"),
    [("http://127.0.0.1:9", "Connection refused"), ("http://no-such-host.invalid:3000", "")],
)
def test_a_grafana_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch, url: str, cause: str) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    result = CliRunner().invoke(main, ["dashboards", "push", "--grafana.url", url])
    assert result.exit_code == 1
    assert f"{url}: nothing answers there ({cause}" in result.output
    assert result.output.endswith("); check host and port, and whether Grafana runs\n")
    assert "Pool" not in result.output


def test_a_proxy_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    result = CliRunner().invoke(main, ["dashboards", "push", "--grafana.url", "http://grafana.example"])
    assert result.exit_code == 1
    assert "the proxy does not answer (Connection refused); check HTTP_PROXY" in result.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:3000", "not an address of a Grafana"),
        ("ftp://admin:x@host", "mqi-exporter: ftp://host: not an address of a Grafana"),
        ("http://admin:x@host", "put no password into the address"),
    ],
)
def test_an_invalid_address_is_reported(url: str, said: str) -> None:
    result = CliRunner().invoke(main, ["dashboards", "push", "--grafana.url", url])
    assert (result.exit_code, said in result.output) == (1, True)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (TOKEN, 0o644, "can be read or changed by others (mode 0644); chmod 600"),
        ("", 0o600, "must hold one token"),
        ("two words", 0o600, "must hold one token"),
        (None, 0o600, "No such file"),
    ],
)
def test_an_unusable_token_file_is_reported(
    grafana: StandIn, tmp_path: Path, content: str | None, mode: int, said: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content, encoding="utf-8")
        path.chmod(mode)
    result = push(grafana, path)
    assert result.exit_code == 1
    assert said in result.output
    assert grafana.writes == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ('["a"]', "not a dashboard"),
        ('{"uid": "x"}', "it needs a uid and a title"),
        (None, "No such"),
    ],
)
def test_a_file_that_is_no_dashboard_is_named_before_anything_is_written(
    grafana: StandIn, token: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = push(grafana, token, *bundled_files(*DASHBOARDS), path)
    assert result.exit_code == 1
    assert f"{path}: " in result.output
    assert said in result.output
    assert grafana.writes == []


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_dashboards_are_exported_as_they_are(tmp_path: Path) -> None:
    assert export("dashboards", "export", tmp_path / "out").exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in bundled_files(*DASHBOARDS)
    }


def test_alerts_are_exported_with_their_runbooks_and_a_sites_own_addresses(tmp_path: Path) -> None:
    options = ("--grafana.url", "https://grafana.example/", "--runbook.url", "https://wiki.example/mqi")
    assert export("alerts", "export", *options, tmp_path / "out").exit_code == 0
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {path.name for path in bundled_files(*ALERTS)} | {
        f"runbooks/{path.name}" for path in bundled_files(*RUNBOOKS)
    }
    rules = (tmp_path / "out" / "mqi-rules.yml").read_text(encoding="utf-8")
    assert "localhost" not in rules
    assert "docs/runbooks" not in rules
    assert rules.count("dashboard_url: https://grafana.example/d/mqi-") == rules.count("- alert:")
    assert rules.count("runbook_url: https://wiki.example/mqi/MQI") == rules.count("- alert:")


def test_an_export_replaces_nothing_unless_told_to(tmp_path: Path) -> None:
    (tmp_path / "mqi-rules.yml").write_text("mine", encoding="utf-8")
    result = export("alerts", "export", tmp_path)
    assert result.exit_code == 1
    assert "mqi-rules.yml is there already" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mqi-rules.yml"]
    assert export("alerts", "export", "--force", tmp_path).exit_code == 0
    assert (tmp_path / "mqi-rules.yml").read_text(encoding="utf-8") != "mine"


def test_an_address_that_would_break_the_rules_is_refused(tmp_path: Path) -> None:
    result = export("alerts", "export", "--grafana.url", 'http://x/{{ "y" }}', tmp_path)
    assert result.exit_code == 2
    assert "blanks, quotes, braces" in result.output


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = export("dashboards", "export", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.output
