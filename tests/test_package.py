"""The package: what is in it, and its installation on a machine without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from exporter import __version__
from exporter.process.bundled_files import ALERTS, DASHBOARDS, RUNBOOKS, bundled_files
from supply.locks import RUNTIME_LOCK, pins

ROOT = Path(__file__).parents[1]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
OLDEST = "3.10"


def interpreter(version: str) -> str | None:
    """A Python of this version, where there is one."""
    if version == RUNNING:
        return sys.executable
    if pyenv := shutil.which("pyenv"):
        found = subprocess.run(
            [pyenv, "which", "python3"],
            env={**os.environ, "PYENV_VERSION": version},
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0:
            return found.stdout.strip()
    return shutil.which(f"python{version}")


VERSIONS = sorted({version for version in (OLDEST, RUNNING) if interpreter(version)})


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    run(sys.executable, "-m", "supply.wheelhouse", folder, *VERSIONS, cwd=ROOT)
    return folder


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(archive: Path) -> set[str]:
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


@pytest.mark.timeout(400)
def test_the_wheel_holds_page_dashboards_alerts_and_runbooks_and_nothing_foreign(wheelhouse: Path) -> None:
    [wheel] = wheelhouse.glob("mqi_beam_exporter-*.whl")
    found = names(wheel)
    for folder, paths in (
        ("dashboards", bundled_files(*DASHBOARDS)),
        ("alerts", bundled_files(*ALERTS)),
        ("docs/runbooks", bundled_files(*RUNBOOKS)),
    ):
        assert {f"exporter/_shipped/{folder}/{path.name}" for path in paths} <= found
    for part in ("static", "templates"):
        there = {f"exporter/web/{part}/{path.name}" for path in (ROOT / "exporter" / "web" / part).iterdir()}
        assert there <= found
    own = f"mqi_beam_exporter-{__version__}"
    assert {name.split("/")[0] for name in found} == {"exporter", f"{own}.dist-info", f"{own}.data"}
    assert f"{own}.data/data/share/man/man1/mqi-exporter.1" in found


@pytest.mark.timeout(400)
def test_the_wheelhouse_brings_the_guides_and_the_examples_they_speak_of(wheelhouse: Path) -> None:
    for path in ("docs/operations.md", "config/mqi-exporter.service", "config/prometheus.yml", "config/web.yaml"):
        assert (wheelhouse / path).read_bytes() == (ROOT / path).read_bytes()


@pytest.mark.timeout(400)
def test_the_source_distribution_makes_the_same_wheel(wheelhouse: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    hidden = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(ROOT, source, ignore=hidden)
    build = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, tmp_path, cwd=source)
    [archive] = tmp_path.glob("*.tar.gz")
    assert {"CHANGELOG.md", "LICENSE", "config/prometheus.yml", "dashboards/beams.py", "docs/monitoring.md"} <= names(
        archive
    )
    run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"),
        *("--no-build-isolation", "-w", tmp_path / "again", archive),
    )
    [wheel] = (tmp_path / "again").glob("*.whl")
    [first] = wheelhouse.glob("mqi_beam_exporter-*.whl")
    assert names(wheel) == names(first)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_machine_without_network_installs_it_and_runs_it(wheelhouse: Path, tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    assert python
    run(python, "-m", "venv", tmp_path / "venv")
    # A network namespace of its own, without even loopback.
    offline = ["unshare", "--map-root-user", "--net"]
    programs = tmp_path / "venv" / "bin"
    install: list[str | Path] = [
        *offline,
        programs / "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-index",
    ]
    lock = wheelhouse / "requirements-runtime.lock"
    run(*install, "--find-links", wheelhouse, "--require-hashes", "-r", lock)
    run(*install, "--no-deps", *wheelhouse.glob("mqi_beam_exporter-*.whl"))
    run(programs / "pip", "check", "--disable-pip-version-check")
    assert __version__ in run(programs / "mqi-exporter", "--version", cwd=tmp_path)
    run(programs / "mqi-exporter", "alerts", "export", tmp_path / "alerts", cwd=tmp_path)
    assert (tmp_path / "alerts" / "mqi-rules.yml").read_bytes() == (ROOT / "alerts" / "mqi-rules.yml").read_bytes()
    run(programs / "mqi-exporter", "dashboards", "export", tmp_path / "dashboards", cwd=tmp_path)
    assert len(list((tmp_path / "dashboards").iterdir())) == 3
    log = ROOT / "tests" / "data" / "logs" / "v2_b18.log"
    assert "18 announced, 18 started, 18 finished" in run(programs / "mqi-exporter", "verify", log, cwd=tmp_path)


@pytest.mark.timeout(400)
def test_a_wheel_with_another_digest_is_refused(wheelhouse: Path, tmp_path: Path) -> None:
    [wheel] = wheelhouse.glob("h11-*.whl")
    with zipfile.ZipFile(shutil.copy(wheel, tmp_path), "a") as archive:
        archive.writestr("h11/extra.py", "print('somebody else was here')")
    install = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index"]
    lock = tmp_path / "lock"
    lock.write_text(next(pin.requirement for pin in pins(RUNTIME_LOCK, RUNNING) if pin.name == "h11"), encoding="utf-8")
    target = tmp_path / "target"
    done = subprocess.run(
        [*install, "--find-links", tmp_path, "--no-deps", "--target", target, "--require-hashes", "-r", lock],
        env={**os.environ, "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not target.exists()
