"""The exporter behind a real nginx, under a folder of its address, with the shipped example."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx

from tests.support.certificates import Authority
from tests.support.process import PATIENCE_SECONDS, ExporterProcess, wait_for
from tests.support.sshd import free_port

EXAMPLE = Path(__file__).parents[2] / "config" / "nginx.conf"


@contextmanager
def nginx(folder: Path, behind: str) -> Iterator[str]:
    """Run nginx with the shipped example in front of the exporter at ``behind``; yields its address."""
    authority = Authority(folder)
    authority.issue("server")
    port = free_port()
    site = EXAMPLE.read_text(encoding="utf-8")
    for old, new in (
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("mqi.hospital.example", "localhost"),
        ("/etc/nginx/tls", str(folder)),
        ("127.0.0.1:10813/;", f"{behind}/;"),
    ):
        assert old in site
        site = site.replace(old, new)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"pid {folder}/pid; daemon off; master_process off; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{site}}}\n",
        encoding="utf-8",
    )
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None, "nginx is not installed: run make tools"
    command = [program, "-e", str(folder / "error.log"), "-c", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"https://localhost:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def test_page_metrics_and_live_updates_work_under_a_folder_of_a_proxy(tmp_path: Path) -> None:
    with (
        ExporterProcess("demo", "--web.listen-address", "127.0.0.1:0") as target,
        nginx(tmp_path, target.address) as proxy,
    ):
        client = httpx.Client(
            verify=ssl.create_default_context(cafile=tmp_path / "authority.crt"), timeout=PATIENCE_SECONDS
        )

        def answers() -> bool:
            try:
                return client.get(f"{proxy}/beams/").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answers, "nginx answers")
        moved = client.get(f"{proxy}/beams")
        assert (moved.status_code, urljoin(proxy, moved.headers["location"])) == (301, f"{proxy}/beams/")
        page = client.get(f"{proxy}/beams/")
        links = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
        assert links
        for link in links:
            address = urljoin(f"{proxy}/beams/", link)
            assert address.startswith(f"{proxy}/beams/"), link
            assert client.get(address).status_code == 200, link
        assert "mqi_beams" in client.get(f"{proxy}/beams/metrics").text
        # Buffered by nginx, the first event would not arrive before the next ones fill its buffer.
        with client.stream("GET", f"{proxy}/beams/api/v1/events") as events:
            assert next(events.iter_lines()) == "event: state"
