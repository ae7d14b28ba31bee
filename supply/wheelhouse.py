"""Collects everything for an installation without network: wheels, the lock, examples and guides.

pip evaluates markers for the Python that runs it, not for the target version. So this module works out what is needed;
pip only downloads it and compares digests.

Usage: python -m supply.wheelhouse FOLDER [VERSION...]      (default: Python 3.10 and 3.11, 64-bit Linux)
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from supply.locks import ROOT, RUNTIME_LOCK, pins

SUMS = "SHA256SUMS"
PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")


def pip(*arguments: str) -> None:
    """Run pip; exit with its status if it fails."""
    subprocess.run([sys.executable, "-m", "pip", *arguments, "-q", "--disable-pip-version-check"], check=True, cwd=ROOT)


def build(target: Path) -> None:
    """Build the exporter's own wheel."""
    for old in target.glob("mqi_beam_exporter-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as clean:
        # Files of an earlier build must not get into the wheel.
        source = Path(clean) / "source"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "tests"))
        pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(target), str(source))


def fetch(target: Path, version: str) -> None:
    """Download the wheels of all packages for this version of Python."""
    tag = f"cp{version.replace('.', '')}"
    options = [f"--platform={platform}" for platform in PLATFORMS]
    options += [
        f"--python-version={version}",
        "--implementation=cp",
        *(f"--abi={abi}" for abi in (tag, "abi3", "none")),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        wanted = Path(temporary) / "wanted.txt"
        wanted.write_text("\n".join(pin.requirement for pin in pins(RUNTIME_LOCK, version)), encoding="utf-8")
        pip(
            *("download", "--no-deps", "--only-binary=:all:", "--require-hashes", *options),
            *("-d", str(target), "-r", str(wanted)),
        )


def main(folder: str, *versions: str) -> None:
    """Fill the folder."""
    target = Path(folder).absolute()
    target.mkdir(parents=True, exist_ok=True)
    build(target)
    # The files that the operations guide mentions, and the guide: there may be no checkout on the target.
    for name in ("config", "docs"):
        shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True)
    shutil.copy(RUNTIME_LOCK, target)
    for version in versions or ("3.10", "3.11"):
        fetch(target, version)
    sys.stdout.write(f"sha256 of {target / SUMS}, to be published apart from the files: {write_sums(target)}\n")


def write_sums(target: Path) -> str:
    """Write the digests of all files of a folder to its file ``SHA256SUMS``, for ``sha256sum --check``.

    Args:
        target: the folder.

    Returns:
        The digest of ``SHA256SUMS``. Publish it elsewhere: it covers all files.
    """
    sums = target / SUMS
    sums.unlink(missing_ok=True)
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256((target / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    sums.write_text("".join(lines), encoding="utf-8")
    return hashlib.sha256(sums.read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"wheelhouse: {error}")
