"""Tries a door with inputs that atheris makes, guided by what they reach in the exporter (``make fuzz``).

``python -m tests.fuzz parser --runs 1000000 --corpus DIR``: what reaches something new is kept in ``DIR``, so that the
next run goes on from there. An input that breaks a promise ends the run and is written beside it as ``finding-...``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import atheris
import click

from tests.fuzz.target import NAMES, findings, target


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--runs", type=int, default=100_000, show_default=True, help="How many inputs.")
@click.option("--corpus", type=click.Path(path_type=Path), required=True, help="Folder of inputs worth keeping.")
@click.option("--seconds", type=int, default=0, help="End after so long; 0 for never.")
@click.option(
    "--watch",
    metavar="MODULE",
    help="Keep what reaches something new in this module and what it imports, instead of in all of the exporter: "
    "more inputs a second.",
)
def main(name: str, runs: int, corpus: Path, seconds: int, watch: str | None) -> None:
    """Try the door NAME."""
    with atheris.instrument_imports(include=["exporter"]):
        import_module(watch or f"tests.fuzz.{name}")
    tried = target(name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(tried.seeds()):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    dictionary = corpus.parent / f"{corpus.name}.words"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in tried.words), encoding="ascii")
    with tried.opened() as check:
        atheris.Setup(
            [
                "tests.fuzz",
                f"-runs={runs}",
                f"-max_total_time={seconds}",
                f"-max_len={tried.longest_bytes}",
                f"-dict={dictionary}",
                f"-artifact_prefix={corpus.parent}/finding-{name}-",
                "-timeout=10",
                "-rss_limit_mb=1024",
                "-print_final_stats=1",
                str(corpus),
                *(str(folder) for folder in {found.parent for found in findings(name)}),
            ],
            check,
        )
        atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
