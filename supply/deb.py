"""Builds a Debian package: everything in /usr/lib/mqi-exporter, a user, a systemd unit, man pages and completion.

Nothing is downloaded when the package is installed. It is for one version of Python, that of the Debian release.

Usage: python -m supply.deb FOLDER [PYTHON]      (default: 3.11, which is Debian 12's)
"""

from __future__ import annotations

import compileall
import gzip
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from exporter import __version__
from supply import wheelhouse
from supply.locks import ROOT, RUNTIME_LOCK

TEMPLATES = Path(__file__).with_name("debian")
LIBRARY = Path("usr/lib/mqi-exporter")
ARCHITECTURE = "amd64"
"""The wheels that the lock allows are for 64-bit Linux on this architecture."""


def install_library(root: Path, python: str) -> None:
    """Install the exporter and its packages below :data:`LIBRARY`, from wheels with the digests of the lock.

    Args:
        root: root folder of the package.
        python: the version of Python, such as ``3.11``.
    """
    library = root / LIBRARY
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder)
        wheelhouse.build(wheels)
        wheelhouse.fetch(wheels, python)
        files = sorted(str(path) for path in wheels.glob("*.whl"))
        platforms = [f"--platform={platform}" for platform in wheelhouse.PLATFORMS]
        abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
        wheelhouse.pip(
            *("install", "--no-index", "--no-deps", "--no-compile", "--only-binary=:all:", "--target", str(library)),
            *(*platforms, f"--python-version={python}", "--implementation=cp", *abis, *files),
        )
    shutil.rmtree(library / "bin", ignore_errors=True)
    if f"{sys.version_info.major}.{sys.version_info.minor}" == python:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(library, quiet=1, stripdir=str(root), prependdir="/", invalidation_mode=mode)


def install_manuals(root: Path) -> None:
    """Install man pages, documents and examples where Debian expects them."""
    library = root / LIBRARY
    shutil.rmtree(library / "share", ignore_errors=True)
    manuals = root / "usr/share/man/man1"
    manuals.mkdir(parents=True)
    for page in sorted((ROOT / "docs" / "man").glob("*.1")):
        (manuals / f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
    documents = root / "usr/share/doc/mqi-exporter"
    shutil.copytree(ROOT / "config", documents / "examples")
    shutil.copytree(ROOT / "docs", documents / "docs", ignore=shutil.ignore_patterns("man", "images"))
    shutil.copy(ROOT / "README.md", documents)
    shutil.copy(ROOT / "LICENSE", documents / "copyright")
    (documents / "changelog.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))


def install_system_files(root: Path) -> None:
    """Install the command, its completion, the unit and the configuration folder."""
    command = root / "usr/bin/mqi-exporter"
    command.parent.mkdir(parents=True)
    shutil.copy(TEMPLATES / "mqi-exporter", command)
    command.chmod(0o755)
    completion = root / "usr/share/bash-completion/completions/mqi-exporter"
    completion.parent.mkdir(parents=True)
    environment = {**os.environ, "_MQI_EXPORTER_COMPLETE": "bash_source"}
    source = "import sys; sys.argv[0] = 'mqi-exporter'; from exporter.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", source], env=environment, cwd=ROOT, capture_output=True, check=True)
    completion.write_bytes(done.stdout)
    unit = root / "usr/lib/systemd/system/mqi-exporter.service"
    unit.parent.mkdir(parents=True)
    text = (ROOT / "config" / "mqi-exporter.service").read_text(encoding="utf-8")
    text = text.replace("/opt/mqi-exporter/bin/mqi-exporter", "/usr/bin/mqi-exporter")
    text = text.replace("Group=mqi\n", "Group=mqi-exporter\n")
    text = text.replace(
        "# /etc/systemd/system/mqi-exporter.service", "# Change it by: systemctl edit mqi-exporter. It runs"
    )
    unit.write_text(text, encoding="utf-8")
    (root / "etc/mqi-exporter").mkdir(parents=True)


def write_control(root: Path, python: str) -> None:
    """Write the package's description and its scripts for installation and removal."""
    major, minor = python.split(".")
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    control = root / "DEBIAN"
    control.mkdir()
    text = (TEMPLATES / "control").read_text(encoding="utf-8")
    filled = text.format(
        version=__version__,
        architecture=ARCHITECTURE,
        installed_kib=size // 1024,
        python=python,
        next_python=f"{major}.{int(minor) + 1}",
    )
    (control / "control").write_text(filled, encoding="utf-8")
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(TEMPLATES / script, control / script)
        (control / script).chmod(0o755)


def build(target: Path, python: str = "3.11") -> Path:
    """Build the package.

    Args:
        target: folder for the package.
        python: the version of Python.

    Returns:
        The package file.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        old_mask = os.umask(0o022)
        try:
            install_library(root, python)
            install_manuals(root)
            install_system_files(root)
            write_control(root, python)
        finally:
            os.umask(old_mask)
        file = target / f"mqi-exporter_{__version__}_{ARCHITECTURE}.deb"
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(file)], check=True)
    return file


def main(folder: str, python: str = "3.11") -> None:
    """Build the package and print its path."""
    assert RUNTIME_LOCK.exists()
    sys.stdout.write(f"{build(Path(folder).absolute(), python)}\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"deb: {error}")
