"""Basic authentication over real connections."""

from __future__ import annotations

import base64
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import httpx
import pytest

from exporter.web import authentication
from exporter.web.authentication import FAILURE_SECONDS, FAILURES_AT_ONCE, FailedLogins, LoginRateLimiter
from exporter.web.connections import address_key
from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.process import PATIENCE_SECONDS, wait_for
from tests.web.site import Site, serve

PASSWORD = "correct horse"
UMLAUTS = "Grüße"


def hashed(password: str, cost: int = 10) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


HASHES = {"prometheus": hashed(PASSWORD), "jürgen": hashed(UMLAUTS)}


@pytest.fixture
def web_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.touch(mode=0o600)
    return write(path, HASHES)


def write(path: Path, users: dict[str, str]) -> Path:
    lines = "".join(f"  {name}: '{its}'\n" for name, its in users.items())
    path.write_text(f"basic_auth_users:\n{lines}", encoding="utf-8")
    return path


@contextmanager
def protected(path: Path) -> Iterator[tuple[Site, FailedLogins]]:
    web_config, failed = ActiveWebConfig(path), FailedLogins()
    with serve(web_config=web_config, failed_logins=failed) as site:
        yield site, failed


def get(site: Site, path: str = "/metrics", user: str = "prometheus", password: str = PASSWORD) -> httpx.Response:
    auth = httpx.BasicAuth(user, password)
    return httpx.get(f"http://{site.server.address}{path}", auth=auth, timeout=PATIENCE_SECONDS)


EVERYTHING = [
    "/", "/table", "/static/page.js", "/metrics", "/-/healthy", "/-/ready", "/api/v1/beams", "/api/v1/openapi.json",
    "/api/v1/beams/70010001/running/explain",
    "/api/v1/events", "/api/v1/names", "/api/v1/runs", "/nothing",
]  # fmt: skip


@pytest.mark.parametrize("path", EVERYTHING)
def test_nothing_is_answered_without_a_password(web_yaml: Path, path: str) -> None:
    with protected(web_yaml) as (site, failed):
        answer = site.get(path)

    assert (answer.status_code, answer.text) == (401, "User and password are needed.\n")
    assert answer.headers["www-authenticate"] == 'Basic realm="mqi-exporter", charset="UTF-8"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert failed.read() == {"password": 0, "limited": 0, "certificate": 0}, "a first question is no failed login"


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "BREW"])
def test_every_method_needs_a_password(web_yaml: Path, method: str) -> None:
    with protected(web_yaml) as (site, _):
        assert site.client.request(method, "/-/reload").status_code == 401


def test_everything_is_answered_with_a_correct_password(web_yaml: Path) -> None:
    with protected(web_yaml) as (site, _):
        page = get(site, "/")
        assert page.status_code == 200
        for path in ("/table", "/metrics", "/-/healthy", "/-/ready", "/api/v1/beams", "/api/v1/openapi.json"):
            assert get(site, path).status_code == 200
        auth = ("prometheus", PASSWORD)
        with site.client.stream("GET", "/api/v1/events", auth=auth, timeout=PATIENCE_SECONDS) as events:
            assert next(events.iter_lines()) == "event: state"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("prometheus", "correct horsf"),
        ("prometheus", ""),
        ("prometheus", UMLAUTS),
        ("", PASSWORD),
        ("Prometheus", PASSWORD),
        ("nobody", PASSWORD),
        ("prometheus", PASSWORD + "\0"),
        ("prometheus", "x" * 5000),
    ],
)
def test_a_wrong_login_is_refused_and_counted(web_yaml: Path, user: str, password: str) -> None:
    with protected(web_yaml) as (site, failed):
        assert get(site, user=user, password=password).status_code == 401
        assert failed.read()["password"] == 1


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Basic " + base64.b64encode(b"no colon").decode(), "Bearer abc", "", "Basic " + "A" * 9000],
)
def test_a_malformed_login_is_refused(web_yaml: Path, header: str) -> None:
    with protected(web_yaml) as (site, failed):
        assert site.get("/metrics", authorization=header).status_code == 401
        assert failed.read()["password"] == 1


def test_two_logins_in_one_request_are_refused(web_yaml: Path) -> None:
    right = "Basic " + base64.b64encode(f"prometheus:{PASSWORD}".encode()).decode()
    with protected(web_yaml) as (site, _):
        answer = site.client.get("/metrics", headers=[("authorization", right), ("authorization", right)])
    assert answer.status_code == 401


def test_users_and_passwords_may_be_any_text(web_yaml: Path) -> None:
    with protected(web_yaml) as (site, _):
        assert get(site, user="jürgen", password=UMLAUTS).status_code == 200


def test_only_the_first_72_bytes_of_a_password_count(web_yaml: Path) -> None:
    write(web_yaml, {"prometheus": hashed("x" * 72)})
    with protected(web_yaml) as (site, _):
        assert get(site, password="x" * 80).status_code == 200
        assert get(site, password="x" * 71).status_code == 401


def test_a_correct_login_is_checked_only_once(web_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _counted_checks(monkeypatch)
    with protected(web_yaml) as (site, _):
        assert [get(site).status_code for _ in range(5)] == [200] * 5
    assert len(checks) == 1


def test_simultaneous_requests_with_one_login_share_its_check(web_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _counted_checks(monkeypatch)
    with protected(web_yaml) as (site, _):
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(get(site).status_code)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert answers == [200] * 12
    assert len(checks) == 1


def _counted_checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    checks: list[bytes] = []
    really = authentication._matches

    def check(password: bytes, hashed: str) -> bool:
        checks.append(password)
        return really(password, hashed)

    monkeypatch.setattr(authentication, "_matches", check)
    return checks


def test_an_unknown_user_is_checked_as_long_as_a_known_one(web_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "FAILURES_AT_ONCE", 1000)
    write(web_yaml, {"prometheus": hashed(PASSWORD, 11)})
    with protected(web_yaml) as (site, _):

        def seconds(user: str) -> float:
            started = time.perf_counter()
            assert get(site, user=user, password="wrong").status_code == 401
            return time.perf_counter() - started

        pairs = [(seconds("prometheus"), seconds(f"nobody{number}")) for number in range(8)]
    known, unknown = (statistics.median(each) for each in zip(*pairs, strict=True))
    assert 0.5 < known / unknown < 2.0  # one without a check takes a hundredth


def test_an_address_with_too_many_wrong_logins_must_wait(web_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is, no address is forgiven between two guesses.
    monkeypatch.setattr(authentication, "FAILURE_SECONDS", 600.0)
    with protected(web_yaml) as (site, failed):
        assert get(site).status_code == 200  # remembered from here on
        statuses = [get(site, password=f"guess {number}").status_code for number in range(FAILURES_AT_ONCE)]
        waits = get(site, password="the next guess")
        unseen = get(site, user="jürgen", password=UMLAUTS)
        remembered = get(site)

        assert statuses == [401] * FAILURES_AT_ONCE
        assert (waits.status_code, unseen.status_code) == (429, 429)
        assert 1 <= int(waits.headers["retry-after"]) <= 600
        assert failed.read() == {"password": FAILURES_AT_ONCE, "limited": 2, "certificate": 0}
        assert remembered.status_code == 200, "the scraper must not be locked out by who shares its address"


def test_an_address_may_fail_again_after_a_while() -> None:
    now = 100.0
    rate_limiter = LoginRateLimiter(lambda: now)
    for _ in range(FAILURES_AT_ONCE):
        assert rate_limiter.retry_after_seconds("a") == 0
        rate_limiter.record_failure("a")
    assert 0 < rate_limiter.retry_after_seconds("a") <= FAILURE_SECONDS
    assert rate_limiter.retry_after_seconds("b") == 0
    now += FAILURE_SECONDS
    assert rate_limiter.retry_after_seconds("a") == 0
    rate_limiter.record_failure("a")
    assert rate_limiter.retry_after_seconds("a") > 0


def test_a_scraper_with_an_old_password_stays_below_the_rate_limit() -> None:
    now = 0.0
    rate_limiter = LoginRateLimiter(lambda: now)
    for _ in range(1000):
        assert rate_limiter.retry_after_seconds("a") == 0
        rate_limiter.record_failure("a")
        now += 10.0


def test_the_rate_limiter_remembers_a_bounded_number_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_ADDRESSES_AT_MOST", 10)
    rate_limiter = LoginRateLimiter(lambda: 0.0)
    for number in range(1000):
        rate_limiter.record_failure(str(number))
    assert len(rate_limiter._full_at) == 10


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_addresses_of_one_machine_share_one_limit(host: str, key: str) -> None:
    assert address_key(host) == key


def test_a_flood_of_logins_delays_neither_a_scrape_nor_health(web_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, checking = threading.Event(), threading.Event()

    def check(password: bytes, hashed: str) -> bool:
        if password == PASSWORD.encode():
            return True
        checking.set()
        return not released.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(authentication, "_matches", check)
    with protected(web_yaml) as (site, failed):
        assert get(site).status_code == 200
        answers: list[int] = []
        guesses = [
            threading.Thread(target=lambda number=number: answers.append(get(site, password=f"{number}").status_code))
            for number in range(20)
        ]
        for guess in guesses:
            guess.start()
        assert checking.wait(PATIENCE_SECONDS)
        wait_for(lambda: failed.read()["limited"] == 16, "all but four turned away")
        assert get(site).status_code == 200  # while a check is under way
        assert get(site, "/-/healthy").status_code == 200
        released.set()
        for guess in guesses:
            guess.join(PATIENCE_SECONDS)
    assert sorted(answers) == [401] * 4 + [429] * 16


def test_the_number_of_waiting_logins_is_bounded(web_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_CHECKS_WAITING_AT_MOST", 0)
    with protected(web_yaml) as (site, _):
        answer = get(site)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_forty_new_logins_from_nine_addresses_do_not_shut_out_a_tenth(
    web_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_check = threading.Event()
    matches = authentication._matches

    def held_up(password: bytes, hashed: str) -> bool:
        assert may_check.wait(PATIENCE_SECONDS)
        return matches(password, hashed)

    monkeypatch.setattr(authentication, "_matches", held_up)
    answers: list[int] = []

    def ask(site: Site, host: str, password: str) -> int:
        own = httpx.HTTPTransport(local_address=host)
        with httpx.Client(transport=own, timeout=PATIENCE_SECONDS) as client:
            answer = client.get(f"http://{site.server.address}/metrics", auth=("prometheus", password))
        answers.append(answer.status_code)
        return answer.status_code

    with protected(web_yaml) as (site, failed), ThreadPoolExecutor(48) as threads:
        attackers = [threads.submit(ask, site, f"127.0.0.{10 + number % 9}", f"guess {number}") for number in range(40)]
        wait_for(lambda: failed.read()["limited"] >= 40 - 32, "more logins than may wait")
        newcomer = threads.submit(ask, site, "127.0.0.2", PASSWORD)
        wait_for(lambda: failed.read()["limited"] > 40 - 32 or newcomer.done(), "the newcomer's place")
        may_check.set()
        assert newcomer.result() == 200
        # The one that has its turn, and one of each other address at most, come first.
        assert answers[: answers.index(200)].count(401) <= 10
        assert {each.result() for each in attackers} <= {401, 429, 503}


def test_a_changed_password_is_used_without_a_restart(web_yaml: Path) -> None:
    with protected(web_yaml) as (site, _):
        assert get(site).status_code == 200
        auth = ("prometheus", PASSWORD)
        with site.client.stream("GET", "/api/v1/events", auth=auth, timeout=PATIENCE_SECONDS) as events:
            lines = events.iter_lines()
            assert next(lines) == "event: state"
            write(web_yaml, {"prometheus": hashed("another")})
            for _ in lines:
                pass  # who listens is sent away, and must come in again
        assert get(site).status_code == 401
        assert get(site, password="another").status_code == 200


def test_headers_of_the_configuration_replace_the_servers_own(web_yaml: Path) -> None:
    web_yaml.write_text(
        "http_server_config:\n  headers:\n    Content-Security-Policy: default-src 'self'\n    X-Frame-Options: deny\n",
        encoding="utf-8",
    )
    with protected(web_yaml) as (site, _):
        answer = site.get("/")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert (answer.headers["x-frame-options"], answer.headers["x-content-type-options"]) == ("deny", "nosniff")
