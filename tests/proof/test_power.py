"""A power loss loses nothing that was acknowledged: the short form, its long form, and the controls that must fail."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.proof.power import (
    CLOSE,
    MKDIR,
    OPEN,
    RENAME,
    SYNC,
    TRUNCATE,
    UNLINK,
    WRITE,
    Disk,
    Operation,
    compiled,
    differences,
    prove,
    recorded,
)

NOTHING = "nothing can be recorded: this needs Linux and a C compiler (cc or gcc)"


async def proved(states: int, seed: int, sabotage: str | None = None) -> dict[str, Any]:
    result = await prove(states=states, seed=seed, sabotage=sabotage)
    if result is None:
        pytest.skip(NOTHING)
    return result


async def test_no_acknowledged_event_is_lost_to_a_power_loss():
    """
    Two hundred states of the files after a power loss: all open, hold what was acknowledged, and add up.
    """
    result = await proved(200, seed=1)

    assert "ok" == result["verdict"], result
    assert 2_000 < result["operations"]


@pytest.mark.parametrize("sabotage", ["normal", "off", "early"])
async def test_an_outbox_that_does_not_wait_for_the_disk_is_caught(sabotage: str):
    """
    The controls: ``synchronous`` NORMAL and OFF, and acknowledging before the commit, must lose events.
    """
    result = await proved(40, seed=2, sabotage=sabotage)

    assert 4 < result["lost"], result


async def test_an_erasure_that_does_not_wait_for_the_disk_is_caught():
    """
    The control of what must be gone: a WAL that was emptied and not synced is back, and whoever was erased in it.
    """
    kept = 0
    for seed in range(3, 9):
        kept = kept or (await proved(100, seed=seed, sabotage="unsynced"))["kept"]  # some two, one time in eight none

    assert 0 < kept


@pytest.mark.proof
async def test_no_acknowledged_event_is_lost_in_a_hundred_thousand_power_losses():
    """
    The long form.
    """
    result = await proved(100_000, seed=7)

    assert "ok" == result["verdict"], result


def operations(root: Path, *steps: tuple[int, int, str | bytes, int]) -> list[Operation]:
    """(kind, descriptor, name or data, offset or flags)."""
    return [
        Operation(kind, descriptor, offset, os.fsencode(root / what) if isinstance(what, str) else what)
        for kind, descriptor, what, offset in steps
    ]


# What the product and SQLite do to files, and what they do not do today: a rename, a write at the end.
EVERYTHING = """
import os
os.mkdir(os.path.abspath("log"))
one = os.open(os.path.abspath("log/one"), os.O_RDWR | os.O_CREAT)
os.pwrite(one, b"x" * 700, 300)
os.ftruncate(one, 900)
os.write(one, b"beginning")
os.fsync(one)
os.close(one)
end = os.open(os.path.abspath("log/one"), os.O_WRONLY | os.O_APPEND)
os.write(end, b"end")
os.fdatasync(end)
gone = os.path.abspath("gone")
open(gone, "w").write("gone")
os.rename(gone, gone + "-again")
open(gone, "w").write("new")
os.unlink(gone + "-again")
open(os.path.abspath("index-shm"), "w").write("left out")
"""


class TestTheRecord:
    def test_it_holds_everything_that_a_process_does_to_its_files(self, tmp_path: Path):
        """
        Under the recorder a process writes in every way there is; the record gives the same files.
        """
        library, root, trace = compiled(tmp_path), tmp_path / "root", tmp_path / "trace"
        if library is None:
            pytest.skip(NOTHING)
        root.mkdir()
        environment = {"LD_PRELOAD": str(library), "POWER_ROOT": str(root), "POWER_TRACE": str(trace)}
        subprocess.run([sys.executable, "-c", EVERYTHING], cwd=root, env=environment, check=True)

        assert [] == differences(root, recorded(trace))
        assert b"beginning" == (root / "log" / "one").read_bytes()[:9]
        assert {OPEN, CLOSE, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, MKDIR} == {each.kind for each in recorded(trace)}

    def test_one_that_misses_a_write_is_noticed(self, tmp_path: Path):
        """
        Played to its end, a record must give every file byte for byte; what it does not give, it names.
        """
        (tmp_path / "a").write_bytes(b"first second")
        (tmp_path / "b").write_bytes(b"")
        made = [(OPEN, 3, "a", os.O_CREAT), (WRITE, 3, b"first ", 0), (CLOSE, 3, b"", 0), (OPEN, 3, "b", os.O_CREAT)]

        assert ["a"] == differences(tmp_path, operations(tmp_path, *made))
        made.insert(2, (WRITE, 3, b"second", 6))
        assert [] == differences(tmp_path, operations(tmp_path, *made))

    def test_what_was_synced_survives_and_nothing_else_must(self, tmp_path: Path):
        """
        Synced bytes of a synced name are in every state; later bytes, and a name nobody synced, only in some.
        """
        disk = Disk(tmp_path)
        for each in operations(
            tmp_path,
            (OPEN, 3, "a", os.O_CREAT),
            (WRITE, 3, b"certain", 0),
            (SYNC, 3, b"", 0),
            (OPEN, 4, "", 0),
            (SYNC, 4, b"", 0),
            (WRITE, 3, b"perhaps", 7),
            (OPEN, 5, "b", os.O_CREAT),
        ):
            disk.do(each)
        states = [disk.survivors(random.Random(seed)) for seed in range(100)]

        assert all(state["a"][0].startswith(b"certain") for state in states)
        assert {b"certain", b"certainperhaps"} <= {state["a"][0] for state in states}
        assert {True, False} == {"b" in state for state in states}
