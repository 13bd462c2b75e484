"""The rooms of tumour/ lie on floors: imports only point down, and what travels needs nothing of a checkout."""

import ast

import pytest

from tests.conftest import ROOT

FLOORS = [  # a room may use itself and the rooms on lower floors
    ["errors"],
    ["files", "records", "processes", "cohort"],
    ["cases", "scans"],
    ["checks", "maps", "scores", "pictures"],
    ["patches", "runs", "scanner"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted((ROOT / "tumour").rglob("*.py"))


def imported(path):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(name):
    return name.split(".")[1] if name.startswith("tumour.") else None


def test_every_room_has_a_floor():
    rooms = {path.relative_to(ROOT / "tumour").parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert rooms == FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_only_point_down(path):
    room = path.relative_to(ROOT / "tumour").parts[0].removesuffix(".py")
    for name in imported(path):
        used = room_of(name)
        assert used in (None, room) or FLOOR[used] < FLOOR[room], f"{path.name} imports {name}"


@pytest.mark.parametrize("package", ["custom_components", "tumour"])
def test_what_travels_imports_nothing_of_a_checkout(package):
    names = {name.split(".")[0] for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    assert not names & {"tools", "tests", "benchmarks", "bundles"}
