"""The architecture, held: imports point one way, rules do no IO, SQL and outgoing HTTP have one room each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A room may import those before it and itself.
WORDS = ["event", "outcome", "problem", "secret"]
RULES = [
    "recall",
    "wording",
    "identifiers",
    "bots",
    "scrub",
    "person",
    "destination",
    "settings",
    "retry",
    "lifecycle",
    "normalise",
    "visit",
    "dialects",
    "door",
    "body",
    "route",
    "quality",
    "preview",
    "samples",
]
EDGES = ["failpoint", "clock", "outbox", "wire", "transport", "sources", "mocks"]
ENGINES = ["collect", "delivery", "pull", "console"]
WIRING = ["terminal", "metrics", "logs", "config", "worker", "app", "demo", "cli", "__main__"]
ROOMS = [*WORDS, *RULES, *EDGES, *ENGINES, *WIRING]
OUTBOX = ["errors", "disk", "log", "state", "reads", "upkeep", "outbox"]

IO = {
    "aiohttp",
    "aiosqlite",
    "asyncio",
    "http",
    "os",
    "pathlib",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "router").with_suffix("").parts
    return parts[0]


def imported(path: Path) -> set[str]:
    """Dotted names of everything a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("router.")}


@pytest.mark.parametrize("path", modules("router"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    """
    A room imports only rooms before it in the list, so that a reader can go from top to bottom.
    """
    if path.parent == ROOT / "router" and path.name == "__init__.py":
        return
    here = ROOMS.index(room(path))
    wrong = {name for name in rooms_imported(path) if name in ROOMS and ROOMS.index(name) > here}

    assert set() == wrong
    assert rooms_imported(path) <= set(ROOMS), "a new room has no place in the list yet"


@pytest.mark.parametrize("path", modules("router/outbox"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_rooms_of_the_outbox_know_those_before_them(path: Path):
    """
    The same within the outbox: the files, what was accepted, what became of it, and then who reads or forgets it.
    """
    if path == ROOT / "router" / "outbox" / "__init__.py":
        return
    here = path.relative_to(ROOT / "router" / "outbox").with_suffix("").parts[0]
    before = OUTBOX[: OUTBOX.index(here) + 1]
    wrong = {name for name in imported(path) if name.startswith("router.outbox.") and name.split(".")[2] not in before}

    assert wrong <= {"router.outbox.SQLITE"}


@pytest.mark.parametrize("path", modules("destinations"), ids=lambda path: path.name)
def test_a_destination_knows_words_identifiers_and_the_contract(path: Path):
    """
    A partner's file does no IO, reads no clock and knows nothing of the engines.
    """
    assert rooms_imported(path) <= {*WORDS, "identifiers", "bots", "destination"}
    assert set() == {name.split(".")[0] for name in imported(path)} & IO


@pytest.mark.parametrize(
    "path",
    [path for path in modules("router") if path.parent != ROOT / "router" or path.stem in {*WORDS, *RULES}],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_words_and_rules_do_no_io(path: Path):
    """
    Rules are given the time, random numbers and bytes; they fetch nothing themselves.
    """
    if room(path) in {*WORDS, *RULES}:
        assert set() == {name.split(".")[0] for name in imported(path)} & IO


def test_sql_has_one_room():
    """
    sqlite3 and aiosqlite are imported by the outbox alone; the CLI's doctor asks it for versions.
    """
    users = {
        room(path)
        for path in modules("router")
        if {name.split(".")[0] for name in imported(path)} & {"sqlite3", "aiosqlite"}
    }

    assert {"outbox"} == users


def test_the_check_can_fail():
    """
    The rule is not vacuous: it sees the imports of a module that has many.
    """
    assert {"outbox", "delivery", "collect"} <= rooms_imported(ROOT / "router" / "app.py")
