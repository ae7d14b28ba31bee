"""A real Prometheus at a real exporter that asks for TLS, passwords and certificates."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from exporter.config.listen_address import parse_listen_address
from tests.support.certificates import Authority
from tests.support.process import PATIENCE_SECONDS, ExporterProcess, wait_for
from tests.support.secured import HASH, PASSWORD, TLS, exporter, job, write_config, write_web_config
from tests.support.servers import Prometheus

CLIENTS_VERIFIED = {
    "client_auth_type": "RequireAndVerifyClientCert",
    "client_ca_file": "authority.crt",
    "client_allowed_sans": ["prometheus.example"],
}


@contextmanager
def scraped(folder: Path, *jobs: dict[str, Any]) -> Iterator[Prometheus]:
    prometheus = Prometheus(folder)
    configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": list(jobs)}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    with prometheus:
        yield prometheus


def ups(prometheus: Prometheus) -> dict[str, float]:
    """Each job's last scrape: 1 or 0."""
    return {labels["job"]: value for labels, value in prometheus.query("up")}


def errors(prometheus: Prometheus) -> dict[str, str]:
    answer = httpx.get(f"http://{prometheus.address}/api/v1/targets", timeout=PATIENCE_SECONDS)
    return {each["labels"]["job"]: each["lastError"] for each in answer.json()["data"]["activeTargets"]}


def value(url: str, context: ssl.SSLContext, name: str, auth: tuple[str, str] | None = None) -> float:
    text = httpx.get(url + "/metrics", verify=context, auth=auth, timeout=PATIENCE_SECONDS).text
    (found,) = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name))
    return float(found)


@pytest.mark.timeout(240)
def test_prometheus_scrapes_over_tls_with_a_password(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    authority.issue("server")
    authority.issue("late", days=(-9, -1))
    users = {"basic_auth_users": {"prometheus": HASH}}
    login = {"username": "prometheus", "password": PASSWORD}
    trust, mistrust = {"ca_file": str(authority.file)}, {"ca_file": str(other.file)}
    with ExitStack() as stack:
        target = stack.enter_context(exporter(tmp_path, {"tls_server_config": TLS, **users}))
        late_config = {"tls_server_config": {"cert_file": "late.crt", "key_file": "late.key"}, **users}
        late = stack.enter_context(exporter(tmp_path, late_config, "late.yaml"))
        assert late.said("late.crt expired on")
        prometheus = stack.enter_context(
            scraped(
                tmp_path,
                job("right", target, basic_auth=login, tls_config=trust),
                job("no_password", target, tls_config=trust),
                job("wrong_password", target, basic_auth={**login, "password": "x"}, tls_config=trust),
                job("wrong_authority", target, basic_auth=login, tls_config=mistrust),
                job("old_version", target, basic_auth=login, tls_config={**trust, "max_version": "TLS11"}),
                job("no_tls", target, basic_auth=login, scheme="http"),
                job("expired", late, basic_auth=login, tls_config=trust),
            )
        )
        wait_for(lambda: len(ups(prometheus)) == 7 and ups(prometheus)["right"] == 1, "a scrape of every job")
        assert {name for name, up in ups(prometheus).items() if up} == {"right"}
        said = errors(prometheus)
        assert "401" in said["wrong_password"]
        assert "401" in said["no_password"]
        assert "unknown authority" in said["wrong_authority"]
        assert "expired" in said["expired"]
        assert all(text for name, text in said.items() if name != "right")
        wait_for(
            lambda: bool(prometheus.query('mqi_exporter_failed_logins_total{job="right",reason="password"} > 0')),
            "the wrong logins in the metric",
        )

        # Another certificate while it runs: who trusts its authority comes in, who does not stays out.
        other.issue("server")
        wait_for(lambda: ups(prometheus).get("wrong_authority") == 1, "the new certificate", 60)
        wait_for(lambda: ups(prometheus).get("right") == 0, "the old certificate gone")
        assert target.said("web configuration read again")

        # One that does not fit its key stays out of use, and says so.
        shutil.copyfile(tmp_path / "authority.crt", tmp_path / "server.crt")
        wait_for(lambda: target.said("web configuration refused, the old one stays in use"), "the refusal")
        selector = 'mqi_exporter_web_config_up_to_date{job="wrong_authority"} == 0'
        wait_for(lambda: bool(prometheus.query(selector)), "the refusal in the metric")
        assert ups(prometheus)["wrong_authority"] == 1


@pytest.mark.timeout(180)
def test_prometheus_scrapes_over_tls_with_a_client_certificate(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    authority.issue("server")
    authority.issue("client", client=True, names=("prometheus.example",))
    authority.issue("another", client=True, names=("grafana.example",))
    authority.issue("late", client=True, names=("prometheus.example",), days=(-9, -1))
    authority.issue("not_a_client", names=("prometheus.example",))
    other.issue("foreign", client=True, names=("prometheus.example",))

    def shown(name: str | None) -> dict[str, Any]:
        own = {} if name is None else {"cert_file": f"{tmp_path / name}.crt", "key_file": f"{tmp_path / name}.key"}
        return {"tls_config": {"ca_file": str(authority.file), **own}}

    names = ("client", "another", "late", "not_a_client", "foreign", None)
    with (
        exporter(tmp_path, {"tls_server_config": {**TLS, **CLIENTS_VERIFIED}}) as target,
        scraped(tmp_path, *(job(name or "none", target, **shown(name)) for name in names)) as prometheus,
    ):
        wait_for(lambda: len(ups(prometheus)) == 6 and ups(prometheus)["client"] == 1, "a scrape of every job")
        assert {name for name, up in ups(prometheus).items() if up} == {"client"}
        wait_for(
            lambda: bool(prometheus.query('mqi_exporter_failed_logins_total{reason="certificate"} >= 5')),
            "the refused certificates in the metric",
        )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_least_version_is_as_configured(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    client = ssl.create_default_context(cafile=authority.file)
    client.maximum_version = version
    with exporter(tmp_path, {"tls_server_config": {**TLS, "min_version": "TLS13"}}) as target:
        with socket.create_connection(parse_listen_address(target.address), PATIENCE_SECONDS) as connection:
            if version is ssl.TLSVersion.TLSv1_2:
                with pytest.raises(ssl.SSLError):
                    client.wrap_socket(connection, server_hostname="localhost")
            else:
                with client.wrap_socket(connection, server_hostname="localhost") as secured:
                    assert secured.version() == "TLSv1.3"
        context = ssl.create_default_context(cafile=authority.file)
        assert value(f"https://{target.address}", context, "mqi_exporter_certificate_expiry_timestamp_seconds") > 1e9


def mqi_exporter(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)


def test_top_comes_in_with_a_password_file_and_an_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    password_file = tmp_path / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(PASSWORD + "\n", encoding="utf-8")
    with exporter(tmp_path, {"tls_server_config": TLS, "basic_auth_users": {"me": HASH}}) as target:
        where = ("top", "--once", "--url", f"https://{target.address}", "--ca-file", authority.file)
        login = ("--user", "me", "--password-file", password_file)
        right = mqi_exporter(*where, *login)
        assert right.returncode == 0, right.stderr
        assert "--password-file" in mqi_exporter(*where).stderr
        assert "knows no such user" in mqi_exporter(*where, "--user", "you", "--password-file", password_file).stderr
        assert "certificate is not trusted" in mqi_exporter(*where[:-2], *login).stderr
        # It finds out by itself that its own configuration says TLS.
        own = ("--config.file", write_config(tmp_path, target.address), "--web.config.file", tmp_path / "web.yaml")
        assert mqi_exporter("top", "--once", *where[-2:], *login, *own).returncode == 0
        password_file.chmod(0o644)
        assert "can be read or changed by others" in mqi_exporter(*where, *login).stderr


def test_a_configuration_that_is_reloaded_reads_the_web_configuration_too(tmp_path: Path) -> None:
    web_file = write_web_config(tmp_path, {"basic_auth_users": {"me": HASH}})
    arguments = ("--config.file", write_config(tmp_path), "--web.config.file", web_file, "--web.enable-lifecycle")
    with ExporterProcess(*arguments) as target:
        url, auth = f"http://{target.address}/-/reload", ("me", PASSWORD)
        assert httpx.post(url, timeout=PATIENCE_SECONDS).status_code == 401
        assert httpx.post(url, auth=auth, timeout=PATIENCE_SECONDS).status_code == 200
        web_file.write_text("basic_auth_users: {me: hunter2}\n", encoding="utf-8")
        refused = httpx.post(url, auth=auth, timeout=PATIENCE_SECONDS)
    assert refused.status_code == 500
    assert "web.yaml:1: basic_auth_users.me: is not a bcrypt hash" in refused.text
    assert "hunter2" not in refused.text + target.log
    assert PASSWORD not in target.log
    assert base64.b64encode(f"me:{PASSWORD}".encode()).decode() not in target.log


def test_check_config_checks_the_web_configuration_and_warns(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    config = write_config(tmp_path, ":10813")
    command = ("check-config", "--config.file", config)
    alone = mqi_exporter(*command)
    assert (alone.returncode, "without TLS or password" in alone.stderr) == (0, True)

    good = write_web_config(tmp_path, {"tls_server_config": TLS, "basic_auth_users": {"me": HASH}})
    protected = mqi_exporter(*command, "--web.config.file", good)
    assert (protected.returncode, protected.stderr) == (0, "")
    assert protected.stdout == f"{config}: valid\n{good}: valid\n"

    half = mqi_exporter(*command, "--web.config.file", write_web_config(tmp_path, {"tls_server_config": TLS}))
    assert (half.returncode, "asks for no password" in half.stderr) == (0, True)

    bad = write_web_config(
        tmp_path, {"tls_server_config": {**TLS, "min_version": "TLS10"}, "basic_auth_users": {"a": 1}}
    )
    refused = mqi_exporter(*command, "--web.config.file", bad)
    assert refused.returncode == 1
    assert "basic_auth_users.a: is not a bcrypt hash" in refused.stderr
    assert "min_version: TLS10 is broken" in refused.stderr
    started = mqi_exporter("run", "--config.file", config, "--web.config.file", bad)
    assert (started.returncode, started.stderr.replace("Error: ", "")) == (1, refused.stderr.replace("Error: ", ""))


def test_a_server_without_protection_says_so_when_it_starts(tmp_path: Path) -> None:
    with ExporterProcess("run", "--config.file", write_config(tmp_path, "0.0.0.0:0")) as target:
        assert target.address
    assert target.said("without TLS or password")
    assert target.said("tls=False authentication=False") or target.said("tls=false authentication=false")


def check_health(address: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter.cli", "healthcheck", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


@pytest.mark.parametrize("how", ["plain", "password", "tls", "client certificate"])
def test_a_containers_health_check_needs_no_login(tmp_path: Path, how: str) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    users = {"basic_auth_users": {"operator": HASH}}
    content: dict[str, dict[str, Any]] = {
        "plain": {},
        "password": users,
        "tls": {"tls_server_config": TLS, **users},
        "client certificate": {"tls_server_config": {**TLS, **CLIENTS_VERIFIED}},
    }
    with exporter(tmp_path, content[how]) as running:
        found = check_health(running.address)
        assert (found.returncode, found.stderr) == (0, ""), found
        address = running.address
    found = check_health(address)
    assert found.returncode == 1
    assert address in found.stderr


def test_a_containers_health_check_tells_the_exporter_from_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = check_health(f"127.0.0.1:{silent.getsockname()[1]}")
    assert found.returncode == 1
    assert "timed out" in found.stderr
