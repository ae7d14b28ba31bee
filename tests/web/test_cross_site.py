"""Requests that a browser sends for a page of another site, or to a foreign name."""

from __future__ import annotations

import pytest

from tests.web.site import (
    serve,
)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "what will be"},
        {"sec-fetch-site": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://exporter.example:10813.evil.example"},
        {"origin": "http://exporter.example:3000"},
        {"origin": "http://exporter.example"},
        {"origin": "https://exporter.example:10813"},
        {"origin": "HTTPS://exporter.example:10813", "sec-fetch-site": "none"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://exporter.example:10813", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    ],
    ids=str,
)
def test_a_page_of_another_site_reloads_nothing(headers: dict[str, str]) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        answers = [
            site.client.request(method, "/-/reload", headers={"host": "exporter.example:10813", **headers})
            for method in ("POST", "PUT")
        ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert {answer.text for answer in answers} == {
        "A page of another site asked for this. Reload with curl, or send the exporter SIGHUP.\n"
    }
    assert reloads == []


def test_a_second_header_does_not_hide_another_site() -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        ours = f"http://{site.server.address}"
        for name, good, bad in (("origin", ours, "http://evil.example"), ("sec-fetch-site", "none", "cross-site")):
            for said in ([(name, good), (name, bad)], [(name, bad), (name, good)]):
                assert site.client.post("/-/reload", headers=said).status_code == 403

    assert reloads == []


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "http://exporter.example:10813"},
        {"origin": "HTTPS://Exporter.example:10813", "sec-fetch-site": "same-origin"},
        {"referer": "http://evil.example/", "user-agent": "curl/8.0"},
    ],
    ids=str,
)
def test_own_page_and_other_programs_may_reload(headers: dict[str, str]) -> None:
    reloads: list[int] = []
    with serve(reload=lambda: reloads.append(1), enable_lifecycle=True) as site:
        answer = site.client.post("/-/reload", headers={"host": "exporter.example:10813", **headers})

    assert (answer.status_code, reloads) == (200, [1])


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/api/v1/beams", "/static/page.js", "/nothing"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:10813", "mqi.hospital.example.evil.example", "localhost.evil.example", "0x7f.1"],
)
def test_a_request_for_a_foreign_host_name_is_refused(path: str, host: str) -> None:
    with serve(allowed_hosts=("mqi.hospital.example",)) as site:
        answer = site.client.get(path, headers={"host": host})
    assert answer.status_code == 421
    assert answer.text.startswith("This exporter does not answer to the name that was asked for.")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        *("mqi.hospital.example", "MQI.Hospital.Example:10813", "mqi.hospital.example."),
        *("127.0.0.1:10813", "10.1.2.3", "[::1]:10813", "[fe80::1%25eth0]:1", "localhost:10813"),
    ],
)
def test_the_servers_own_names_and_addresses_are_answered(host: str) -> None:
    with serve(allowed_hosts=("mqi.hospital.example",)) as site:
        assert site.client.get("/-/healthy", headers={"host": host}).status_code == 200


def test_every_host_name_is_answered_where_none_is_configured() -> None:
    with serve() as site:
        assert site.client.get("/-/healthy", headers={"host": "evil.example"}).status_code == 200
