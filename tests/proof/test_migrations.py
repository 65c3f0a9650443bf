"""Migrations that are cut short: every statement of every file, and the control that must fail."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.running import ROOT


async def proved(*arguments: str) -> dict[str, Any]:
    """In a process of its own: it forks."""
    command = (sys.executable, "-m", "tests.proof.migrations", *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    return dict(json.loads((await process.communicate())[0]))


async def test_old_or_new_and_never_between():
    """
    Killed, or failing, at each statement: the file is as before or as after, and the next start brings it to its end.
    """
    result = await proved()

    assert "ok" == result["verdict"], result
    assert 80 <= result["cuts"]


async def test_a_build_that_commits_on_its_way_is_caught():
    """
    The control: as ``executescript`` does it, files are left between two schemas.
    """
    result = await proved("--sabotage")

    assert "between" in result["verdict"], result
