"""Trusted hosts with a real sshd: every way to write known_hosts, and messages of failures."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh import connection as ssh_connection
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.source import SshLogSource
from tests.support.process import wait_for
from tests.support.sshd import Sshd, keygen


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("host")
    second = keygen(folder / "second_key", kind="ecdsa")
    with Sshd(folder / "sshd", extra=f"HostKey {second}") as server:
        yield server


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def public(key: Path) -> str:
    return " ".join(Path(f"{key}.pub").read_text(encoding="utf-8").split()[:2])


def trusting(sshd: Sshd, known: Path, text: str | bytes) -> SshHost:
    known.write_bytes(text if isinstance(text, bytes) else text.encode())
    return replace(sshd.host, known_hosts_file=known)


def works(host: SshHost) -> None:
    source = SshLogSource("hpc1", host)
    try:
        source.listing("/")
    finally:
        source.close()


def trouble(host: SshHost) -> SourceUnavailable:
    source = SshLogSource("hpc1", host)
    with pytest.raises(SourceUnavailable) as caught:
        source.listing("/")
    source.close()
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


DAMAGE = [
    "@cert-authority *.example ssh-ed25519 AAAA\n",
    "@cert-authority * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGO\n",
    "@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGO\n",
    "@revoked\n",
    "other.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGO\n",
    "127.0.0.1\n",
    "<<<<<<< HEAD\n",
    "\x00\x01\x02\n",
    "other ssh-rsa ====\n",
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("line", DAMAGE)
def test_an_unusable_line_makes_no_host_unreachable(sshd: Sshd, known: Path, line: str, *, before: bool) -> None:
    own = f"[127.0.0.1]:{sshd.port} {public(sshd.host_key)}\n"
    works(trusting(sshd, known, line + own if before else own + line))


def test_a_skipped_line_is_logged_once_with_its_number_and_reason(sshd: Sshd, known: Path) -> None:
    ssh_connection._logged_lines.clear()
    host = trusting(sshd, known, f"# remark\nother ssh-rsa ====\n[127.0.0.1]:{sshd.port} {public(sshd.host_key)}\n")
    with capture_logs() as lines:
        works(host)
        works(host)
    [line] = [line for line in lines if "skipped" in line["event"]]
    assert line["lines"] == f"{known}:2: its key is damaged"


def test_a_revoked_key_is_refused_with_the_line_that_revokes_it(sshd: Sshd, known: Path) -> None:
    own = public(sshd.host_key)
    found = trouble(trusting(sshd, known, f"[127.0.0.1]:{sshd.port} {own}\n@revoked * {own}\n"))
    assert found.kind == "host_key_revoked"
    assert f"revoked by {known}:2" in str(found)


def test_a_revoked_key_of_another_host_is_ignored(sshd: Sshd, known: Path) -> None:
    own = public(sshd.host_key)
    works(trusting(sshd, known, f"@revoked other.example {own}\n[127.0.0.1]:{sshd.port} {own}\n"))


@pytest.mark.parametrize("order", [0, 1])
def test_several_keys_of_one_type_are_alternatives(sshd: Sshd, known: Path, tmp_path: Path, order: int) -> None:
    lines = [f"[127.0.0.1]:{sshd.port} {public(key)}\n" for key in (sshd.host_key, keygen(tmp_path / "old"))]
    works(trusting(sshd, known, lines[order] + lines[1 - order]))


def test_the_host_is_asked_for_a_key_of_the_trusted_type(sshd: Sshd, known: Path) -> None:
    """The host prefers its ed25519 key, but only its other key is trusted."""
    works(trusting(sshd, known, f"[127.0.0.1]:{sshd.port} {public(sshd.folder.parent / 'second_key')}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "[127.0.0.*]:{port} {key}\n",
        "[127.?.0.1]:{port},other {key} remark\n",
        "* {key}\n",
        "!other.example,* {key}\n",
        "\ufeff[127.0.0.1]:{port} {key}\r\n",
        "# remark\r\n\r\n  [127.0.0.1]:{port}\t{key}   \r\n",
    ],
)
def test_every_way_to_write_a_line_is_trusted(sshd: Sshd, known: Path, text: str) -> None:
    works(trusting(sshd, known, text.format(port=sshd.port, key=public(sshd.host_key))))


def test_a_negated_name_is_not_trusted(sshd: Sshd, known: Path) -> None:
    found = trouble(trusting(sshd, known, f"*,![127.0.0.1]:* {public(sshd.host_key)}\n"))
    assert found.kind == "host_key_unknown"


def test_if_only_a_certificate_authority_is_trusted_the_message_asks_for_the_plain_key(sshd: Sshd, known: Path) -> None:
    found = trouble(trusting(sshd, known, f"@cert-authority * {public(sshd.host_key)}\n"))
    assert found.kind == "host_key_unknown"
    assert f"{known}:1 trusts a certificate authority" in str(found)
    assert "host certificates are not supported: add the host's plain key" in str(found)
    other = trouble(trusting(sshd, known, f"@cert-authority other.example {public(sshd.host_key)}\n"))
    assert "certificate authority" not in str(other)


def test_a_host_with_a_certificate_presents_its_plain_key(tmp_path: Path, known: Path) -> None:
    authority = keygen(tmp_path / "authority")
    with Sshd(tmp_path / "certified", extra=f"HostCertificate {tmp_path}/certified/host_key-cert.pub") as server:
        server.kill()
        command = [
            "ssh-keygen",
            "-q",
            "-s",
            str(authority),
            "-I",
            "host",
            "-h",
            "-n",
            "127.0.0.1",
            f"{server.host_key}.pub",
        ]
        subprocess.run(command, check=True, timeout=30)
        server.start()
        works(trusting(server, known, f"[127.0.0.1]:{server.port} {public(server.host_key)}\n"))


def test_a_damaged_line_of_the_host_itself_is_named(sshd: Sshd, known: Path) -> None:
    found = trouble(trusting(sshd, known, f"[127.0.0.1]:{sshd.port} ssh-ed25519 AAAA\n"))
    assert found.kind == "host_key_unknown"
    assert f"{known}:1 was skipped: its key is damaged" in str(found)


def test_an_edited_known_hosts_file_is_used_at_the_next_connection(tmp_path: Path, known: Path) -> None:
    now = [0.0]
    with Sshd(tmp_path / "host") as server:
        own = f"[127.0.0.1]:{server.port} {public(server.host_key)}\n"
        source = SshLogSource("hpc1", trusting(server, known, own), clock=lambda: now[0])
        source.listing("/")
        known.write_text(f"garbage\n@revoked * {public(server.host_key)}\n{own}", encoding="utf-8")
        server.kill()
        server.start()
        with pytest.raises(SourceUnavailable) as caught:
            source.listing("/")
        assert caught.value.kind == "host_key_revoked"
        known.write_text(f"garbage\n{own}", encoding="utf-8")
        now[0] += 100
        source.listing("/")
        source.close()


@pytest.mark.parametrize(("mode", "who"), [(0o660, "its group"), (0o602, "everybody"), (0o666, "everybody")])
def test_a_file_that_others_may_write_is_not_trusted(sshd: Sshd, known: Path, mode: int, who: str) -> None:
    host = trusting(sshd, known, f"* {public(sshd.host_key)}\n")
    known.chmod(mode)
    found = trouble(host)
    assert found.kind == "known_hosts"
    assert f"{known}: {who} can change it (mode {mode:04o}); run `chmod go-w {known}`" in str(found)


def test_a_file_of_another_user_is_not_trusted(sshd: Sshd, known: Path) -> None:
    host = trusting(sshd, known, f"* {public(sshd.host_key)}\n")
    os.chown(known, 12345, -1)
    found = trouble(host)
    assert found.kind == "known_hosts"
    assert f"{known}: belongs to user 12345, who can change it; run `chown " in str(found)


@pytest.mark.parametrize("alias", ["gpu-cluster", "GPU-Cluster"])
def test_host_key_alias_names_the_host_in_known_hosts(sshd: Sshd, known: Path, tmp_path: Path, alias: str) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(f"Host gpu\n  HostName 127.0.0.1\n  Port {sshd.port}\n  HostKeyAlias {alias}\n", encoding="utf-8")
    config.chmod(0o600)
    host = replace(trusting(sshd, known, f"gpu-cluster {public(sshd.host_key)}\n"), host="gpu", port=None)
    works(replace(host, ssh_config_file=config))
    config.write_text(f"Host gpu\n  HostName 127.0.0.1\n  Port {sshd.port}\n", encoding="utf-8")
    assert trouble(replace(host, ssh_config_file=config)).kind == "host_key_unknown"


class TestWeakAlgorithms:
    @pytest.mark.parametrize(
        ("offered", "allowed"),
        [("Ciphers aes256-cbc", "aes256-cbc"), ("Ciphers aes256-ctr\nMACs hmac-sha1", "hmac-sha1")],
    )
    def test_a_host_with_weak_algorithms_only_is_refused_unless_one_is_allowed(
        self, tmp_path: Path, offered: str, allowed: str
    ) -> None:
        with Sshd(tmp_path / "old", extra=offered) as server:
            found = trouble(server.host)
            assert found.kind == "protocol"
            assert "allow_algorithms" in str(found)
            works(replace(server.host, allow_algorithms=(allowed,)))
            other = "hmac-md5" if allowed == "hmac-sha1" else "aes128-cbc"
            assert trouble(replace(server.host, allow_algorithms=(other,))).kind == "protocol"

    def test_no_weak_algorithm_is_offered_to_a_host(self, tmp_path: Path) -> None:
        with Sshd(tmp_path / "host", extra="LogLevel DEBUG3") as server:
            works(server.host)

            def offers() -> list[str]:
                return re.findall(r"(?:ciphers|MACs) ctos: (.*) \[preauth\]", server.log.read_text(encoding="utf-8"))

            wait_for(lambda: len(offers()) >= 4, "what both sides offer")
            ours = ",".join(offer for offer in offers() if "aes128-ctr,aes192" in offer and "chacha" not in offer)
            macs = [offer for offer in offers() if offer.startswith("hmac-sha2-256,")]
            assert ours
            assert macs
            assert not re.search("cbc|sha1|md5", ",".join([ours, *macs]))
