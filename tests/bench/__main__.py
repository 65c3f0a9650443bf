"""Every speed figure, one row each, as a table: ``python -m tests.bench [--only S1,S3] [--full PATH]``.

Each row is a bench of its own, which measures side by side in one run; see there. PATH is the outbox of five million
events that ``tests.bench.age`` fills where it is not there yet (some minutes, 4 GB). The whole table takes half an hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Lines = list[dict[str, Any]]


class Figure(NamedTuple):
    number: str
    what: str
    command: tuple[str, ...]  # of tests.bench
    found: Callable[[Lines], float]
    must: str
    best: float | None = None  # "must" as a number: at least, where it is below 1 or a ratio of rates; else at most
    at_most: bool = False

    def reached(self, value: float) -> bool:
        assert self.best is not None
        return value <= self.best if self.at_most else value >= self.best


def _first(*path: str) -> Callable[[Lines], float]:
    def found(lines: Lines) -> float:
        value: Any = lines[0]
        for key in path:
            value = value[key]
        return float(value)

    return found


def _kind(kind: str, key: str) -> Callable[[Lines], float]:
    return lambda lines: float(next(line for line in lines if line["kind"] == kind)[key])


def _slowest(lines: Lines) -> float:
    return max(float(line["us"]) for line in lines if line["visitor"] == "known")


ACCEPT, BATCH = ("accept",), ("accept", "--batch", "100")
ONE, TWO = ("--workers", "1"), ("--workers", "2")
TOGETHER = ("together",)
AGE = ("age", "--full", "{full}")
FIGURES = (
    Figure("S1", "single events ÷ a no-op server", ACCEPT, _first("ratio"), "0.45", 0.45),
    Figure("S1", "the same, collecting in a process of its own", (*ACCEPT, *ONE), _first("ratio"), "0.45", 0.45),
    Figure("S1", "the same, two collecting processes", (*ACCEPT, *TWO), _first("ratio"), "", None),
    Figure("S2", "events in batches of 100 ÷ raw inserts", BATCH, _first("ratio"), "0.20", 0.20),
    Figure("S2", "the same, two collecting processes", (*BATCH, *TWO), _first("ratio"), "0.20", 0.20),
    Figure("S3", "p50 at half of the most, ms", TOGETHER, _first("held_p50_ms"), "5", 5, at_most=True),
    Figure("S3", "p99 at half of the most, ms", TOGETHER, _first("held_p99_ms"), "15", 15, at_most=True),
    Figure("S4", "8 destinations ÷ 1", (*AGE, "accept"), _first("destinations_8_to_1", "ratio"), "0.90", 0.90),
    Figure("S4", "5 million events in it ÷ empty", (*AGE, "accept"), _first("full_to_empty", "ratio"), "0.90", 0.90),
    Figure(
        "S4",
        "1 million behind a dead lane ÷ none",
        ("age", "--full", "{full}-dead", "--events", "1000000", "dead"),
        _first("dead_lane_to_none", "ratio"),
        "0.90",
        0.90,
    ),
    Figure("S5", "drain, one a request ÷ a bare client", ("drain",), _kind("single", "of_bare_client"), "0.60", 0.60),
    Figure("S6", "drain, 1 000 a request ÷ S2's rate", ("drain",), _kind("batch", "of_accepted"), "1.0", 1.0),
    Figure("S7", "p99 with 3 lanes delivering ÷ held", TOGETHER, _first("p99_ratio"), "1.5", 1.5, at_most=True),
    Figure(
        "S7",
        "the same, collecting in a process of its own",
        (*TOGETHER, *ONE),
        _first("p99_ratio"),
        "1.5",
        1.5,
        at_most=True,
    ),
    Figure("S7", "delivered ÷ accepted, a second later", TOGETHER, _first("delivered_1s_later"), "1.0", 0.999),
    Figure("S8", "memory idle, MB", (*AGE, "memory"), _first("idle_mb"), "90", 90, at_most=True),
    Figure("S8", "memory, 5 million waiting, MB", (*AGE, "memory"), _first("waiting_mb"), "250", 250, at_most=True),
    Figure("S8", "bytes on disk an event", (*AGE, "memory"), _first("bytes_per_event"), "1400", 1400, at_most=True),
    Figure(
        "S9",
        "forget 1 000 people of a million events, s",
        ("age", "--full", "{full}-forget", "--events", "1000000", "forget"),
        _first("seconds"),
        "60",
        60,
        at_most=True,
    ),
    Figure("S9", "first page of a search, ms", (*AGE, "search"), _first("ms", "newest"), "200", 200, at_most=True),
    Figure("S9", "restart, 5 million waiting, s", (*AGE, "restart"), _first("ready_s", "full"), "2", 2, at_most=True),
    Figure("S10", "the door, the slowest known visitor, µs", ("admit",), _slowest, "40", 40, at_most=True),
    Figure(
        "S11",
        "collecting in a process of its own ÷ all in one",
        (*ACCEPT, *ONE, "--against", "one"),
        _first("ratio"),
        "1.3",
        1.3,
    ),
    Figure(
        "S11",
        "the same, batches, two collecting processes",
        (*BATCH, *TWO, "--against", "one"),
        _first("ratio"),
        "1.3",
        1.3,
    ),
)


def ran(command: tuple[str, ...], full: Path) -> Lines:
    """What a bench prints."""
    words = [word.format(full=full) for word in command]
    asked = [sys.executable, "-m", f"tests.bench.{words[0]}", *words[1:]]
    printed = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--full", type=Path, default=Path(tempfile.gettempdir()) / "turnout-bench-full")
    asked = parser.parse_args()
    wanted = set(filter(None, asked.only.split(",")))
    seen: dict[tuple[str, ...], Lines] = {}
    print("| # | figure | must | reached |  |\n|---|---|---|---|---|", flush=True)
    for each in FIGURES:
        if wanted and each.number not in wanted:
            continue
        if each.command not in seen:
            seen[each.command] = ran(each.command, asked.full)
        value = each.found(seen[each.command])
        verdict = "" if each.best is None else "yes" if each.reached(value) else "**no**"
        print(f"| {each.number} | {each.what} | {each.must} | {value:g} | {verdict} |", flush=True)
    for command, lines in seen.items():
        print(" ".join(command), *map(json.dumps, lines), sep="\n    ", file=sys.stderr)


if __name__ == "__main__":
    main()
