"""A real exporter under attack: a scrape beside it is answered, and afterwards everything is as before.

The scrape comes from another address than the attackers: the limits are by address, and one whose connections are all
busy gets no more (`test_an_address_whose_connections_are_all_busy_gets_no_more_and_others_do`).
"""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import pytest

from exporter.config.listen_address import parse_listen_address
from exporter.web.connections import CONNECTIONS_OF_ONE_ADDRESS
from tests.support.attackers import attack
from tests.support.certificates import Authority
from tests.support.process import PATIENCE_SECONDS, ExporterProcess, wait_for

ROOT = Path(__file__).parents[2]
BEAMS = 60
WATCHED_SECONDS = 3.0
SCRAPE_SECONDS = 8.0
"""Generous: such a scrape takes some milliseconds, and the machine is shared. A scraper waits 10 s by default."""
SCRAPED_FROM = "127.0.0.2"
MEMORY_BYTES = 150 * 1024 * 1024
FURTHER_THREADS = 16
PASSWORD = "correct horse"


@dataclass
class Usage:
    """What a process holds."""

    memory_bytes: int
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
        status = {line[0].rstrip(":"): line[1] for line in lines if len(line) > 1}
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return cls(int(status["VmRSS"]) * 1024, int(status["Threads"]), files)


class Site:
    """An exporter that runs, and a scraper of it that opens a connection for each scrape, as a restarted one does."""

    def __init__(self, running: ExporterProcess, url: str, verify: ssl.SSLContext | bool = True) -> None:
        self.running = running
        self.url = url
        self.auth = ("me", PASSWORD)
        self._verify = verify
        self.scrape()
        self.before = Usage.of(running.pid)

    def scrape(self) -> float:
        """How long one took, seconds."""
        started = time.monotonic()
        own = httpx.HTTPTransport(local_address=SCRAPED_FROM, verify=self._verify)
        with httpx.Client(transport=own, auth=self.auth, timeout=PATIENCE_SECONDS) as client:
            answer = client.get(f"{self.url}/metrics")
        assert answer.status_code == 200
        assert answer.text.count("mqi_beam_run{") == BEAMS
        return time.monotonic() - started

    def watch(self) -> list[float]:
        """Scrape for a while; what each scrape took."""
        until, taken = time.monotonic() + WATCHED_SECONDS, list[float]()
        while time.monotonic() < until:
            taken.append(self.scrape())
        return taken

    def endures(self, kind: str, count: int) -> list[float]:
        """An attack, scrapes beside it, and everything as before after it; what each scrape beside it took."""
        with attack(kind, self.running.address, count):
            taken = self.watch()
            during = Usage.of(self.running.pid)
        print(f"{kind} x {count}: {len(taken)} scrapes, longest {max(taken):.3f} s; {self.before} {during}")  # noqa: T201
        assert max(taken) < SCRAPE_SECONDS
        assert during.memory_bytes - self.before.memory_bytes < MEMORY_BYTES
        assert during.threads - self.before.threads <= FURTHER_THREADS
        assert during.files - self.before.files <= CONNECTIONS_OF_ONE_ADDRESS + 8
        wait_for(
            lambda: Usage.of(self.running.pid).files <= self.before.files + 2,
            "its connections closed",
            PATIENCE_SECONDS,
        )
        assert self.scrape() < SCRAPE_SECONDS
        assert not self.running.said("Traceback"), self.running.log
        assert len(self.running.lines) < 200, "an attack must not fill the log"
        return taken


def start(folder: Path, web_config: str) -> ExporterProcess:
    logs = folder / "logs"
    logs.mkdir()
    source = min((ROOT / "tests" / "data" / "logs").glob("*.log"))
    for number in range(BEAMS):
        shutil.copyfile(source, logs / f"c{number}_{number}.log")
    config, web_yaml = folder / "exporter.yaml", folder / "web.yaml"
    config.write_text(
        f"discovery: {{kind: directory}}\nsources: [{{log_path: '{logs}/{{case_id}}_{{beam_id}}.log'}}]\n"
        "web: {listen_address: '127.0.0.1:0'}\nretention_seconds: 2592000\nfailed_retention_seconds: 2592000\n",
        encoding="utf-8",
    )
    web_yaml.touch(mode=0o600)
    web_yaml.write_text(web_config, encoding="utf-8")
    return ExporterProcess("run", "--config.file", config, "--web.config.file", web_yaml)


def shows_all(url: str, **how: object) -> None:
    def shown() -> bool:
        text = httpx.get(f"{url}/metrics", timeout=PATIENCE_SECONDS, **how).text  # type: ignore[arg-type]
        return text.count("mqi_beam_run{") == BEAMS

    wait_for(shown, "every beam")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with start(tmp_path_factory.mktemp("open"), "") as running:
        url = f"http://{running.address}"
        shows_all(url)
        yield Site(running, url)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    authority.issue("server")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    tls = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
    with start(folder, f"{tls}basic_auth_users: {{me: '{hashed}'}}\n") as running:
        url, context = f"https://{running.address}", ssl.create_default_context(cafile=authority.file)
        shows_all(url, verify=context, auth=("me", PASSWORD))
        yield Site(running, url, context)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("slow_head", 500),
        ("silent", 500),
        ("deaf", 200),
        ("garbage", 50),
        ("huge_head", 30),
        ("endless_body", 30),
        ("tiny_chunks", 4),
        ("tiny_chunks", 90),
        ("listener", 200),
        ("flood_metrics", 80),
        ("flood_openmetrics", 80),
        ("flood_page", 80),
        ("flood_table", 80),
        ("flood_beams", 80),
    ],
)
def test_a_scrape_beside_an_attack_is_answered(site: Site, kind: str, count: int) -> None:
    taken = site.endures(kind, count)
    if kind == "tiny_chunks":
        assert statistics.median(taken) < 1.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "count"), [("half_handshake", 500), ("silent", 500), ("garbage", 50)])
def test_a_scrape_beside_an_attack_on_tls_is_answered(secured: Site, kind: str, count: int) -> None:
    secured.endures(kind, count)


@pytest.mark.timeout(180)
def test_a_scrape_beside_guessed_passwords_is_answered(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    with start(tmp_path, f"basic_auth_users: {{me: '{hashed}'}}\n") as running:
        url = f"http://{running.address}"
        shows_all(url, auth=("me", PASSWORD))
        Site(running, url).endures("flood_logins", 80)


def raw(site: Site, request: bytes) -> bytes:
    """What a connection says to these bytes, until it closes or an answer's head is there."""
    with closing(socket.create_connection(parse_listen_address(site.running.address), PATIENCE_SECONDS)) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received and (chunk := connection.recv(65536)):
            received += chunk
        return received


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("HEAD /metrics HTTP/1.1", 200),
        ("POST /metrics HTTP/1.1", 405),
        ("DELETE / HTTP/1.1", 405),
        ("BREW /metrics HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 204),
        ("CONNECT example.org:443 HTTP/1.1", 404),
        ("GET http://example.org/ HTTP/1.1", 200),
        ("GET ftp://example.org/ HTTP/1.1", 404),
        ("TRACE / HTTP/1.1", 405),
        ("GET /metrics HTTP/1.0", 200),
        ("GET /metrics HTTP/9.9", 200),
        ("GET /metrics", 400),
        ("get\x00 / HTTP/1.1", 400),
        ("PRI * HTTP/2.0", 404),
        ("GET /static/../metrics HTTP/1.1", 404),
        ("GET /static/..%2f..%2fserver.py HTTP/1.1", 404),
        ("GET /static/%2e%2e/%2e%2e/server.py HTTP/1.1", 404),
        ("GET /static//etc/passwd HTTP/1.1", 404),
        ("GET //etc/passwd HTTP/1.1", 404),
        ("GET /../../../../etc/passwd HTTP/1.1", 404),
        ("GET /static/%00 HTTP/1.1", 404),
        ("GET /static/page.js%00.png HTTP/1.1", 404),
        ("GET /api/v1/beams/%2e%2e/%2e%2e HTTP/1.1", 404),
        ("GET /api/v1/beams/%ff/%fe HTTP/1.1", 404),
        ("GET /api/v1/beams?state=%00 HTTP/1.1", 400),
    ],
)
def test_odd_requests_get_an_error_status(site: Site, request_line: str, status: int) -> None:
    answer = raw(site, f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"root:" not in answer
    assert not site.running.said("Traceback"), site.running.log


@pytest.mark.parametrize(
    "header",
    [
        "Accept: " + ",".join(f"text/plain;version={number};q=0.{number}" for number in range(300)),
        "Accept: application/openmetrics-text;version=" + "9" * 5000,
        "Accept: " + ";" * 8000,
        "Accept: */*;q=" + "9" * 8000,
        "Accept-Encoding: " + ",".join(["gzip"] * 1500),
        "Accept-Encoding: gzip;q=nan, br;q=1e999, *;q=-1",
        "Accept-Encoding: " + "gzip, deflate, br, zstd, " * 300,
        "If-None-Match: " + ",".join(f'"{number}"' for number in range(1500)),
        "Range: bytes=" + ",".join(f"{number}-" for number in range(1000)),
        "Content-Encoding: gzip",
        "Expect: 100-continue",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings",
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https",
        "Authorization: Basic " + base64.b64encode(b"a:b").decode(),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/", "/api/v1/beams"])
def test_absurd_headers_are_answered(site: Site, path: str, header: str) -> None:
    started = time.monotonic()
    answer = raw(site, f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
    assert answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 200 ") or (
        header == "Expect: 100-continue" and answer.startswith(b"HTTP/1.1 100 ")
    ), answer[:200]
    assert time.monotonic() - started < SCRAPE_SECONDS


@pytest.mark.parametrize("head", ["GET /{} HTTP/1.1\r\n", "GET / HTTP/1.1\r\nX: {}\r\n", "{} / HTTP/1.1\r\n"])
def test_a_too_large_request_head_is_refused(site: Site, head: str) -> None:
    assert raw(site, head.format("X" * 20_000).encode()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "X: a\nTransfer-Encoding: chunked",
        "X: a\r\n b",
        "Content-Length: -1",
        "Content-Length: +5",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: xchunked",
        "Content-Length : 5",
        " Folded: yes",
    ],
)
def test_no_second_request_is_smuggled_behind_one_with_an_unclear_end(site: Site, framing: str) -> None:
    smuggled = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    # It must not say itself that it closes: then nothing would follow whatever the server does.
    request = f"POST /-/reload HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}"
    with closing(socket.create_connection(parse_listen_address(site.running.address), PATIENCE_SECONDS)) as connection:
        connection.sendall(request.encode())
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"openapi" not in received
