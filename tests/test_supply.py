"""Locks, licences and the bill of materials: what may come in, and that the documents say what is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import __version__
from supply import deb, licences, sbom
from supply.licences import Licensed
from supply.locks import ROOT, RUNTIME_LOCK, pins
from supply.wheelhouse import write_sums

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_release_is_pinned_with_digests_and_no_index_is_named(lock: Path) -> None:
    for version in VERSIONS:
        found = pins(lock, version)
        assert found
        assert [pin.name for pin in found if not pin.digests] == []
        assert all(digest.startswith("sha256:") and len(digest) == 71 for pin in found for digest in pin.digests)
        assert len({pin.name for pin in found}) == len(found)
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("version", VERSIONS)
def test_the_runtime_lock_is_the_tested_lock_without_development_tools(version: str) -> None:
    everything = set(pins(ROOT / "requirements.lock", version))
    runtime = set(pins(RUNTIME_LOCK, version))
    assert runtime < everything
    assert not {"pytest", "mypy", "grafanalib"} & {pin.name for pin in runtime}
    assert set(pins(ROOT / "requirements-build.lock", version)) < everything


def test_the_guide_names_what_python_3_10_gets_older_releases_of() -> None:
    old, new = ({pin.name: pin.version for pin in pins(RUNTIME_LOCK, version)} for version in ("3.10", "3.13"))
    older = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    guide = " ".join((ROOT / "docs" / "security.md").read_text(encoding="utf-8").split())
    assert f"Older releases than on other versions are locked for it of {' and '.join(older)} (" in guide


def test_fuzzing_uses_the_releases_that_are_tested_and_one_of_atheris_for_each_python() -> None:
    for version in VERSIONS:
        everything = {(pin.name, pin.version) for pin in pins(ROOT / "requirements.lock", version)}
        fuzzing = {(pin.name, pin.version) for pin in pins(ROOT / "requirements-fuzz.lock", version)}
        assert everything < fuzzing
        assert [name for name, _ in fuzzing - everything] == ["atheris"]


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_no_installation_goes_without_digests(file: str) -> None:
    """Each ``pip install`` asks for digests, or takes nothing but the exporter itself."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [command for line in text.splitlines() for command in line.split("&&") if "pip install" in command]
    assert commands
    for command in commands:
        assert ("--require-hashes" in command) != ("--no-deps" in command), command


def test_one_digest_covers_every_file_of_the_wheelhouse(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "a.whl").write_bytes(b"a")
    (tmp_path / "docs" / "b c.md").write_bytes(b"b")
    first = write_sums(tmp_path)
    assert write_sums(tmp_path) == first
    check = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False, timeout=60).returncode == 0
    assert (tmp_path / "SHA256SUMS").read_text(encoding="utf-8").count("\n") == 2
    (tmp_path / "docs" / "b c.md").write_bytes(b"another")
    assert subprocess.run(check, cwd=tmp_path, check=False, timeout=60).returncode != 0
    assert write_sums(tmp_path) != first


def test_the_document_of_licences_is_current() -> None:
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == licences.document(), "run `make licences`"


def test_no_licence_comes_in_that_is_not_allowed() -> None:
    found = licences.licensed(RUNNING)
    assert {each.name for each in found} == {pin.name for pin in pins(RUNTIME_LOCK, RUNNING)}
    assert [each for each in found if not each.allowed] == []


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND BSD-3-Clause", True),
    ],
)
def test_one_allowed_alternative_is_enough(licence: str, allowed: bool) -> None:
    assert Licensed("a", "1", licence).allowed is allowed


def test_the_bill_of_materials_names_all_that_runs_and_what_needs_it() -> None:
    document = json.loads(sbom.bill_of_materials())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["version"] == __version__
    components = {each["bom-ref"]: each for each in document["components"]}
    assert set(components) == {f"pkg:pypi/{pin.name}@{pin.version}" for pin in pins(RUNTIME_LOCK, RUNNING)}
    assert all(each["licenses"] for each in components.values())
    needs = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    reached, waiting = set(), [document["metadata"]["component"]["bom-ref"]]
    while waiting:
        here = waiting.pop()
        waiting += [each for each in needs[here] if each not in reached]
        reached.update(needs[here])
    assert reached == set(components), "nothing comes in that nobody asks for"


def test_the_scripts_of_the_debian_package_are_shell_and_its_unit_starts_the_packaged_command(tmp_path: Path) -> None:
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", str(deb.TEMPLATES / script)], check=True)
    deb.install_system_files(tmp_path)
    unit = (tmp_path / "usr/lib/systemd/system/mqi-exporter.service").read_text(encoding="utf-8")
    assert "ExecStart=/usr/bin/mqi-exporter " in unit
    assert "Group=mqi-exporter\n" in unit
    assert "/opt/mqi-exporter" not in unit
    assert "complete" in (tmp_path / "usr/share/bash-completion/completions/mqi-exporter").read_text(encoding="utf-8")
