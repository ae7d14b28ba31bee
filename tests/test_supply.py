"""Locks, licences and the bill of materials: what may come in, and that the documents say what is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from exporter import __version__
from supply import licences, sbom
from supply.licences import Licensed
from supply.locks import ROOT, RUNTIME_LOCK, pins

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
def test_what_runs_is_what_is_tested_without_the_tools(version: str) -> None:
    everything = set(pins(ROOT / "requirements.lock", version))
    runtime = set(pins(RUNTIME_LOCK, version))
    assert runtime < everything
    assert not {"pytest", "mypy", "grafanalib"} & {pin.name for pin in runtime}
    assert set(pins(ROOT / "requirements-build.lock", version)) < everything


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
def test_one_allowed_choice_is_enough_and_every_part_of_it_must_be(licence: str, allowed: bool) -> None:
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
