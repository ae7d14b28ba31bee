"""known_hosts files are read like ``ssh-keygen -F`` does, and a damaged line hides no other line."""

from __future__ import annotations

import base64
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest

from exporter.sources.ssh.known_hosts import HostKeys, host_name, matches, parse_known_hosts, read_known_hosts

SPARE = bytes(range(32))


def blob(seed: int = 0, kind: str = "ssh-ed25519") -> bytes:
    key = bytes((each + seed) % 256 for each in SPARE)
    return b"".join(struct.pack(">I", len(part)) + part for part in (kind.encode(), key))


def key(seed: int = 0, kind: str = "ssh-ed25519") -> str:
    return f"{kind} {base64.b64encode(blob(seed)).decode()}"


def found(text: str | bytes, name: str = "gpu") -> HostKeys:
    data = text if isinstance(text, bytes) else text.encode()
    return parse_known_hosts(data, "known_hosts", name)


class TestLines:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("gpu", "does not consist of host names, key type and key"),
            ("gpu ssh-ed25519", "does not consist of host names, key type and key"),
            ("@revoked", "does not consist of host names, key type and key"),
            ("gpu ssh-ed25519 !!!!", "its key is damaged"),
            (f"gpu {key()[:-9]}", "its key is damaged"),
            (f"gpu {key()}AAAA", "its key is damaged"),
            ("gpu ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "its key is damaged"),
            (f"gpu {key().replace('ssh-ed25519', 'ssh-rsa', 1)}", "not of type ssh-rsa"),
            ("gpu 1024 37 1234567890", "SSH protocol 1"),
            (f"gpu ssh-dss {key().split()[1]}", "type 'ssh-dss' are not supported"),
            (f"@trusted gpu {key()}", "the marker '@trusted' is unknown"),
            ("gpu \x00\x01\x02 \x7f", "are not supported"),
            ("<<<<<<< HEAD", "does not consist of host names, key type and key"),
        ],
    )
    def test_an_unusable_line_is_skipped_with_its_number_and_reason(self, line: str, reason: str) -> None:
        keys = found(f"# remark\n{line}\ngpu {key(1)}\n")
        assert [each.blob for each in keys.trusted] == [blob(1)]
        [skipped] = keys.skipped
        assert skipped.where == "known_hosts:2"
        assert reason in skipped.reason

    def test_several_keys_of_one_type_are_alternatives(self) -> None:
        keys = found(f"gpu {key(1)}\ngpu,10.0.0.7 {key(2)}\nother {key(3)}\n")
        assert [keys.trusts(blob(seed)) for seed in (1, 2, 3)] == [True, True, False]

    def test_a_revoked_key_names_its_line_and_another_hosts_revocation_does_not_count(self) -> None:
        keys = found(f"gpu {key(1)}\n@revoked * {key(1)}\n@revoked other {key(2)}\n")
        assert keys.revocation(blob(1)) == "known_hosts:2"
        assert keys.revocation(blob(2)) is None

    def test_a_certificate_authority_makes_no_host_trusted_and_is_no_error(self) -> None:
        keys = found(f"@cert-authority *.example {key(1)}\n@cert-authority gpu {key(2)}\n")
        assert (keys.trusted, keys.skipped, keys.authorities) == ((), (), ("known_hosts:2",))

    @pytest.mark.parametrize(
        "text",
        [
            "\ufeffgpu {}\n",
            "gpu {}\r\n",
            "gpu {}",
            "  gpu\t{}  \t\n",
            "\n\n# remark\n#gpu\ngpu {} comment with blanks # and more\n",
            "GPU {}\n",
            "host,gpu,other {}\n",
            "g?u {}\n",
            "* {}\n",
            "!other,g* {}\n",
        ],
        ids=["BOM", "CRLF", "no end", "blanks", "remarks", "case", "list", "sign", "star", "negated"],
    )
    def test_every_way_to_write_a_line_is_read(self, text: str) -> None:
        assert found(text.format(key())).trusts(blob())

    @pytest.mark.parametrize(
        "patterns", ["!gpu,*", "*,!g*", "gpu.example", "[gpu]:22", "gp", "|1|AAAA|AAAA", "|1|", "!gpu"]
    )
    def test_a_line_for_other_hosts_is_ignored(self, patterns: str) -> None:
        assert found(f"{patterns} {key()}\n").trusted == ()

    def test_the_port_is_part_of_the_name(self) -> None:
        text = f"[gpu]:2222 {key(1)}\n[*.example]:2222 {key(2)}\n"
        assert found(text, host_name("GPU", 2222)).trusts(blob(1))
        assert found(text, host_name("a.example", 2222)).trusts(blob(2))
        assert found(text, host_name("gpu", 22)).trusted == ()


def test_matching_a_pattern_takes_linear_time() -> None:
    assert not matches("*a" * 200 + "b", "a" * 5000)


class Writer:
    """Writes random known_hosts files that use everything that the format allows, with damaged lines."""

    DAMAGED = (f"gpu {key()[:-5]}", "gpu", "gpu ssh-ed25519 ====", "@odd gpu ssh-ed25519 AAAA")

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.damaged: set[int] = set()

    def patterns(self) -> str:
        names = [
            "gpu",
            "GPU",
            "gpu.example",
            "*.example",
            "!bad.example",
            "10.0.0.7",
            "[gpu]:2222",
            "[*]:2222",
            "*",
            "!*",
            "g?u",
        ]
        return ",".join(self.chance.sample(names, self.chance.randrange(1, 4)))

    def line(self) -> str:
        chance = self.chance
        match chance.randrange(10):
            case 0:
                return chance.choice(["", "# remark", "   ", "#gpu ssh-ed25519 AAAA"])
            case 1:
                return chance.choice(self.DAMAGED)
            case 2:
                return f"@revoked {self.patterns()} {key(chance.randrange(4))}"
            case 3:
                return f"@cert-authority {self.patterns()} {key(chance.randrange(4))}"
        blank, end = chance.choice([" ", "\t", "   "]), chance.choice(["", " remark", "\t"])
        return f"{self.patterns()}{blank}{key(chance.randrange(4))}{end}"

    def text(self, *, damage: bool) -> str:
        end = self.chance.choice(["\n", "\r\n"])
        lines = [self.line() for _ in range(self.chance.randrange(1, 9))]
        if not damage:
            lines = [line for line in lines if line not in self.DAMAGED]
        self.damaged = {number for number, line in enumerate(lines, 1) if line in self.DAMAGED}
        return "".join(f"{line}{end}" for line in lines)


def by_openssh(path: Path, name: str) -> set[tuple[int, str]]:
    """Return the lines that ``ssh-keygen -F`` finds for a host, each with its marker."""
    done = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(path)], check=False, capture_output=True, text=True, timeout=30
    )
    return {
        (int(number), mark.strip())
        for number, mark in re.findall(r"^# Host \S+ found: line (\d+)(.*)$", done.stdout, re.MULTILINE)
    }


@pytest.mark.parametrize("hashed", [False, True])
def test_generated_files_are_read_as_openssh_reads_them(tmp_path: Path, *, hashed: bool) -> None:
    for seed in range(150):
        path = tmp_path / f"{seed}"
        writer = Writer(seed)
        path.write_text(writer.text(damage=not hashed), encoding="utf-8")
        path.chmod(0o600)
        if hashed:
            subprocess.run(["ssh-keygen", "-H", "-f", str(path)], check=False, capture_output=True, timeout=30)
        for name in ("gpu", "gpu.example", "bad.example", "10.0.0.7", "[gpu]:2222"):
            keys = read_known_hosts(path, name)
            ours = {(int(each.where.rpartition(":")[2]), "") for each in keys.trusted}
            ours |= {(int(each.where.rpartition(":")[2]), "REVOKED") for each in keys.revoked}
            ours |= {(int(each.rpartition(":")[2]), "CA") for each in keys.authorities}
            # ssh-keygen also lists lines with damaged keys.
            expected = {(line, mark) for line, mark in by_openssh(path, name) if line not in writer.damaged}
            assert ours == expected, f"{name}\n{path.read_text()}"
            assert {int(each.where.rpartition(":")[2]) for each in keys.skipped} == writer.damaged
