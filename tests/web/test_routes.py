"""Health, reload, errors, and what all answers have in common."""

from __future__ import annotations

import re
import time
from contextlib import closing
from email.utils import parsedate_to_datetime

import pytest

from exporter.web.routes import ReloadFailed
from tests.support.logs import recorded_logs
from tests.web.site import (
    PATIENCE_SECONDS,
    Site,
    read_to_end,
    serve,
)


@pytest.mark.parametrize(("path", "name"), [("/-/healthy", "healthy"), ("/-/ready", "ready")])
def test_health_and_readiness_name_the_problem(path: str, name: str) -> None:
    trouble: str | None = "source hpc1 has not been polled"
    with serve(**{name: lambda: trouble}) as site:  # type: ignore[arg-type]
        bad = site.get(path)
        trouble = None
        good = site.get(path)

    assert (bad.status_code, bad.text) == (503, f"not {name}: source hpc1 has not been polled\n")
    assert (good.status_code, good.text) == (200, f"{name}\n")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_is_forbidden_unless_enabled(method: str) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1)) as site:
        answer = site.client.request(method, "/-/reload")

    assert answer.status_code == 403
    assert "--web.enable-lifecycle" in answer.text
    assert "SIGHUP" in answer.text
    assert reloads == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_reads_the_configuration_where_enabled(method: str) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        answer = site.client.request(method, "/-/reload")

    assert (answer.status_code, reloads) == (200, [1])


def test_the_reason_for_a_refused_configuration_is_in_the_answer() -> None:
    def refuse() -> None:
        raise ReloadFailed("max_beams: must be at least 1\nweb.listen_addres: unknown key")

    with recorded_logs() as lines, serve(reload=refuse, enable_lifecycle=True) as site:
        answer = site.client.post("/-/reload")

    assert answer.status_code == 500
    assert "max_beams: must be at least 1\nweb.listen_addres: unknown key" in answer.text
    assert (site.errors, lines) == ([], [])


def test_reload_by_get_is_not_allowed() -> None:
    with serve(enable_lifecycle=True) as site:
        answer = site.get("/-/reload")

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"POST", "PUT"}


def test_an_unexpected_error_is_one_500_one_log_line_and_one_count() -> None:
    def fail() -> None:
        raise KeyError("secret")

    with recorded_logs() as lines, serve(reload=fail, enable_lifecycle=True) as site:
        answer = site.client.post("/-/reload")

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert site.errors == ["web"]
    assert [(line["event"], line["path"]) for line in lines] == [("cannot answer a request", "/-/reload")]


def test_every_link_of_the_page_works(site: Site) -> None:
    page = site.get("/")
    links = re.findall(r'href="([^"#]+)"', page.text)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "1.2.3" in page.text
    assert "metrics" in links
    assert {site.get(f"/{link}").status_code for link in links} == {200}


def test_the_page_escapes_what_it_shows() -> None:
    with serve(version="<script>") as site:
        assert "&lt;script&gt;" in site.get("/").text


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/-/", "/metrics/../etc/passwd"])
def test_an_unknown_path_is_404(site: Site, path: str) -> None:
    with closing(site.connect()) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert read_to_end(connection).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
def test_post_to_a_read_only_path_is_405(site: Site, path: str) -> None:
    answer = site.client.post(path)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", "/-/reload", "/nothing"])
def test_every_answer_forbids_sniffing_and_does_not_name_the_server(site: Site, path: str) -> None:
    answer = site.get(path)

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


def test_every_answer_is_dated(site: Site) -> None:
    for path in ("/", "/metrics", "/nothing"):
        dated = parsedate_to_datetime(site.get(path).headers["date"])
        assert abs(dated.timestamp() - time.time()) < PATIENCE_SECONDS


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=mqi_beams", "/api/v1/beams", "/", "/static/page.js"])
@pytest.mark.parametrize("refusal", ["gzip;q=0", "GZIP; q=0.0", "gzip;q=0, *", "*;q=0", "br"])
def test_nothing_is_compressed_for_a_client_that_refuses_gzip(site: Site, path: str, refusal: str) -> None:
    assert "content-encoding" not in site.get(path, **{"accept-encoding": refusal}).headers


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=mqi_beams", "/api/v1/beams", "/"])
def test_a_weight_or_a_star_accepts_gzip(site: Site, path: str) -> None:
    for said in ("gzip;q=0.001", "*", "identity;q=0.5, *;q=0.1"):
        assert site.get(path, **{"accept-encoding": said}).headers["content-encoding"] == "gzip"
