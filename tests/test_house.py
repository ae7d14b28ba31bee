"""The house: imports point only to rooms above, in the order in which the developer guide lists them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOWNWARD = {("exporter/privacy/configured.py", "exporter/config")}
"""What looks down, as the map says itself."""


def rooms() -> dict[str, int]:
    """Files and folders of the exporter with their places on the developer guide's map; those above come first."""
    guide = (ROOT / "docs" / "developer-guide.md").read_text(encoding="utf-8")
    listed: list[str] = []
    folder = ""
    for line in guide.split("\nexporter/\n")[1].split("\ndashboards/ ")[0].splitlines():
        if opened := re.match(r"  (\w+)/ ", line):
            folder = f"exporter/{opened[1]}"
            listed.append(folder)
        else:
            inside = folder if line.startswith("    ") else "exporter"
            listed += [f"{inside}/{name}" for name in re.findall(r"[\w/]+\.py\b", line)]
    assert len(listed) == len(set(listed)), "a room stands on the map twice"
    return {room: place for place, room in enumerate(listed)}


def room_of(file: str, known: dict[str, int]) -> str:
    """The file itself, or its folder where the map does not go into that."""
    return file if file in known else file.rpartition("/")[0]


def imported(path: Path) -> set[str]:
    """Files (modules) and folders (packages) of the exporter that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for module in {f"{node.module}.{each.name}" for each in node.names} | {node.module}:
                place = module.replace(".", "/")
                if (ROOT / f"{place}.py").is_file():
                    found.add(f"{place}.py")
                elif (ROOT / place).is_dir() and "/" in place:
                    found.add(place)
    return {each for each in found if each.startswith("exporter/")}


def files() -> list[str]:
    return sorted(str(each.relative_to(ROOT)) for each in (ROOT / "exporter").rglob("*.py"))


def test_every_file_is_on_the_map_and_everything_on_it_is_there() -> None:
    known = rooms()
    undivided = {each for each in known if not any(other.startswith(f"{each}/") for other in known)}
    there = {file for file in files() if not file.endswith("/__init__.py")}
    assert {file for file in there if file not in known and room_of(file, known) not in undivided} == set()
    assert {room for room in known if not (ROOT / room).exists()} == set()


def test_imports_point_up() -> None:
    known = rooms()
    down = set()
    for file in files():
        room = room_of(file, known)
        for other in {room_of(each, known) for each in imported(ROOT / file)} - {room, "exporter"}:
            own = other.startswith(f"{room}/")  # what a package hands out
            if known[other] > known[room] and not own and (room, other) not in DOWNWARD:
                down.add(f"{file} imports {other}")
    assert down == set()


def test_imports_are_found() -> None:
    found = imported(ROOT / "exporter" / "beams" / "board.py")
    assert {"exporter/beams/roster.py", "exporter/beams/restart.py", "exporter/logs/source.py"} <= found
