"""Proof: a migration that is cut short anywhere leaves the old file or the new one, never anything between.

Every file of the outbox, fresh or of a released schema with events in it, is brought to the newest schema, and one step
further to a made-up one (a table rebuilt, rows moved, a column added, an index): at every statement the process is killed,
or fails. The file is then looked at without the program, by schema, version and every row; and the next start brings it
to its end. One JSON line says the verdict.

    python -m tests.proof.migrations

The control must fail: ``--sabotage`` migrates as ``executescript`` does, which commits on its way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from router import failpoint
from router.outbox.disk import schema, writer
from router.outbox.disk.schema import Migration
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Mark
from tests.builders import NOW, many
from tests.stepped import SteppedClock

EVENTS = 50
FAULTS = ("kill", "raise")
INJECTED, FAILED = 1, 3

NEXT_LOG: Migration = (
    "ALTER TABLE event ADD COLUMN shard INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE name(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    "INSERT INTO name(name) SELECT DISTINCT name FROM event",
    "UPDATE event SET shard = (SELECT id FROM name WHERE name.name = event.name)",
    "CREATE INDEX event_shard ON event(shard)",
)
NEXT_STATE: Migration = (
    "CREATE TABLE delivered(lane INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT",
    "INSERT INTO delivered SELECT lane, first, last FROM run WHERE state = 'delivered'",
    "DELETE FROM run WHERE state = 'delivered'",
    "ALTER TABLE delivery RENAME TO parked",
    "DROP INDEX attempt_lane",
    "DROP TABLE visitor",
)


class Step(NamedTuple):
    """One file that is brought from one schema to a later one."""

    name: str
    before: Path
    migrations: Sequence[Migration]
    statements: int


def steps(directory: Path) -> Iterator[Step]:
    """Fresh files to each released schema, and those of each released schema, with events in them, to the next."""
    nothing = directory / "nothing.db"
    nothing.touch()
    for name, released, further, file in (
        ("log", schema.LOG, NEXT_LOG, "log/00000001.db"),
        ("state", schema.STATE, NEXT_STATE, "state.db"),
    ):
        for version in range(1, len(released) + 1):
            done = released[:version]
            yield Step(f"nothing to {name} {version}", nothing, done, sum(map(len, done)))
        full = asyncio.run(_filled(directory / name)) / file
        yield Step(f"{name} {len(released)} to the next", full, [*released, further], len(further))


async def _filled(directory: Path) -> Path:
    """An outbox of this program's schema, with events and what became of them."""
    store = await Outbox.open(directory, SteppedClock())
    lane = await store.lane("hook", "webhook")
    await store.append(many(EVENTS))
    await store.settle(lane, [Mark(seqs=range(1, 21), state="delivered", at=NOW, attempts=1)])
    await store.settle(lane, [Mark(seqs=range(21, 31), state="dead", at=NOW, attempts=1, reason="HTTP 400")])
    await store.close()
    return directory


def content(path: Path) -> Any:
    """Version, schema and every row of a file, as anybody sees it."""
    connection = sqlite3.connect(path)
    try:
        tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        rows = {
            name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}")))
            for kind, name, _ in tables
            if kind == "table"
        }
        intact = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("PRAGMA user_version").fetchone(), tables, rows, intact
    finally:
        connection.close()


def bring(path: Path, migrations: Sequence[Migration], armed: str, *, sabotage: bool) -> int:
    """Open a file in a process of its own, as the product does. Returns how that ended: 0, or what it died of."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = FAILED
    try:
        if sabotage:
            writer.migrate = _as_a_script
        failpoint._armed.update(failpoint.armed(armed))
        writer.connect(path, migrations).close()
        code = 0
    except failpoint.Injected:
        code = INJECTED
    finally:
        os._exit(code)  # whatever else it is: the child is no second parent


def _as_a_script(connection: sqlite3.Connection, migrations: Sequence[Migration], name: str) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    for migration in migrations[version:]:
        for statement in migration:
            connection.executescript(statement)
            failpoint.failpoint("migrate_after_statement")
    connection.executescript(f"PRAGMA user_version = {len(migrations)}")
    failpoint.failpoint("migrate_before_commit")


def prove(*, sabotage: bool = False) -> dict[str, Any]:
    """Every step, cut at every statement; the verdict is "ok" or where something stood between. A control ends there."""
    told: dict[str, Any] = {"proof": "migrations", "steps": 0, "cuts": 0, "control": sabotage}
    bad: list[str] = []
    silent = os.dup(2)
    with tempfile.TemporaryDirectory(prefix="migrations-") as place, Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)  # every point says that it struck
        directory = Path(place)
        try:
            for step in steps(directory):
                told["steps"] += 1
                _put(directory / "file.db", step.before)
                bring(directory / "file.db", step.migrations, "", sabotage=False)
                new = content(directory / "file.db")
                for place_of_it, armed in _cuts(step):
                    told["cuts"] += 1
                    if (wrong := _cut(directory / "file.db", step, new, armed, sabotage=sabotage)) is not None:
                        bad.append(f"{step.name}, {place_of_it}: {wrong}")
                    if sabotage and bad:
                        return told | {"bad": len(bad), "verdict": bad[0]}
        finally:
            os.dup2(silent, 2)
            os.close(silent)
    return told | {"bad": len(bad), "verdict": bad[0] if bad else "ok"}


def _cuts(step: Step) -> Iterator[tuple[str, str]]:
    for fault in FAULTS:
        for number in range(1, step.statements + 1):
            yield f"{fault} at statement {number}", f"migrate_after_statement={fault}@{number}"
        yield f"{fault} before the commit", f"migrate_before_commit={fault}@1"


def _cut(path: Path, step: Step, new: Any, armed: str, *, sabotage: bool) -> str | None:
    """What is wrong with a file whose migration was cut there; None where nothing is. ``new`` is what it is to hold."""
    old = _put(path, step.before)
    if bring(path, step.migrations, armed, sabotage=sabotage) not in {-signal.SIGKILL, INJECTED}:
        return "it was not cut"
    if content(path) not in (old, new):
        return "something between"
    if bring(path, step.migrations, "", sabotage=sabotage) != 0:
        return "it cannot be opened again"
    return None if content(path) == new and old != new else "it did not come to its end"


def _put(path: Path, before: Path) -> Any:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    shutil.copyfile(before, path)
    return content(path)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--sabotage", action="store_true")
    result = prove(sabotage=options.parse_args().sabotage)
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
