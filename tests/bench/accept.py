"""How much of a bare aiohttp server's rate is left with everything done: dialect, normalise, hash, scrub, store, commit.

``python -m tests.bench.accept [--rounds 3] [--seconds 5] [--batch 1]``: the server on one core, the load on the other, A B
A B in one run, medians; prints one JSON line. Three destinations are configured and held, so that nothing is delivered
meanwhile. With ``--batch 100`` the yardstick is raw SQLite: multi-row inserts of the same bytes, as many a commit as a
request has, FULL, one thread. With ``--workers 1`` a process of its own collects, with ``--workers 2`` two, on both
cores, of which the load takes its share; ``--against one`` compares them with the server that does it all in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.bench.load import MARK

EVENT = {
    "event_name": "purchase",
    "id": "O_1",
    "value": 42.5,
    "currency": "EUR",
    "items": [
        {"id": "SKU_1", "quantity": 1, "product": {"id": "1", "name": "Shirt", "brand": "B", "price": 9.99}},
        {"id": "SKU_2", "quantity": 2, "product": {"id": "2", "name": "Hat", "brand": "B", "price": 16.25}},
    ],
    "user": {
        "id": "u-4711",
        "consistent_anonymous_id": "a-0815",
        "email": "jane.doe@example.com",
        "phone": "+33612345678",
        "firstname": "Jane",
        "lastname": "Doe",
        "consent_categories": ["1", "3"],
    },
    "context": {
        "event_id": MARK,
        "page": {"title": "Thank you", "url": "https://shop.example/thanks?utm_source=x", "lang": "en"},
        "device": {"user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/131.0", "ip": "203.0.113.7", "lang": "fr"},
    },
    "campaign": "spring", "step": 4, "tags": ["a", "b", "c"], "note": "x" * 120,
}  # fmt: skip
HEAD = """
[collect]
listen = "127.0.0.1:0"
workers = {workers}
[console]
listen = "127.0.0.1:0"
[outbox]
path = "{path}"
[sources.shop]
tokens = ["sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"]
"""
CONFIG = (
    HEAD
    + """
[destinations.snap]
type = "snap"
pixel_id = "11111111-2222-3333-4444-555555555555"
access_token = "file:{path}.key"
base_url = "http://127.0.0.1:9"
allow_private = true
[destinations.links]
type = "linktrace"
api_key = "file:{path}.key"
base_url = "http://127.0.0.1:9"
allow_private = true
[destinations.hook]
type = "webhook"
url = "http://127.0.0.1:9/"
secrets = ["file:{path}.key"]
allow_private = true
"""
)
SERVER, CLIENT, BOTH = "0", "1", "0,1"  # cores


def on_core(core: str, *command: str, **more: object) -> subprocess.Popen[str]:
    """A process of this Python on one core."""
    return subprocess.Popen(
        ["taskset", "-c", core, sys.executable, *command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **more,  # type: ignore[call-overload]  # stdin, as Popen names it
    )


def load(url: str, **settings: object) -> dict[str, float]:
    process = on_core(CLIENT, "-m", "tests.bench.load", url, stdin=subprocess.PIPE)
    out, _ = process.communicate(json.dumps(settings))
    return json.loads(out)


class Turnout:
    """The real server, in a directory of its own, its lanes held. With ``workers`` it has both cores."""

    def __init__(self, workers: int = 0) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        path = self.directory / "outbox"
        (self.directory / "outbox.key").write_text("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
        (self.directory / "outbox.key").chmod(0o600)
        (self.directory / "config.toml").write_text(CONFIG.format(path=path, workers=workers))
        self.process = on_core(
            BOTH if workers else SERVER,
            "-m",
            "router",
            "serve",
            "--json",
            "--config",
            str(self.directory / "config.toml"),
        )
        assert self.process.stdout is not None
        started = json.loads(self.process.stdout.readline())
        self.url, self.console = f"{started['collect']}/collect?token=foo", started["console"].rstrip("/")
        for name in ("snap", "links", "hook"):
            self._post(f"/api/v1/destinations/{name}:hold")

    def _post(self, path: str) -> None:
        request = urllib.request.Request(self.console + path, b"{}", {"Content-Type": "application/json"})
        urllib.request.urlopen(request).read()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        subprocess.run(["rm", "-rf", str(self.directory)], check=False)


class Noop:
    def __init__(self) -> None:
        self.process = on_core(SERVER, "-m", "tests.bench.noop")
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/collect?token=foo"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Nothing:
    """In place of a server that is not needed."""

    url = ""

    def stop(self) -> None:
        pass


def raw_sqlite(body: bytes, seconds: float, rows: int) -> float:
    """Rows a second that multi-row inserts of these bytes reach, each a commit, FULL, one thread."""
    directory = tempfile.mkdtemp(prefix="bench-")
    connection = sqlite3.connect(f"{directory}/raw.db", isolation_level=None)
    for pragma in ("page_size = 8192", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE event(seq INTEGER PRIMARY KEY, id TEXT, payload BLOB)")
    statement = "INSERT INTO event VALUES " + ",".join(["(?,?,?)"] * rows)
    number, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        values: list[object] = []
        for seq in range(number, number + rows):
            values += (seq, f"{seq:016}", body)
        connection.execute(statement, values)
        number += rows
    took = time.perf_counter() - began
    connection.close()
    subprocess.run(["rm", "-rf", directory], check=False)
    return number / took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--against", choices=["noop", "sqlite", "one"])
    asked = parser.parse_args()
    one = json.dumps(EVENT)
    body = one if asked.batch == 1 else '{"batch":[' + ",".join([one] * asked.batch) + "]}"
    connections = 128 if asked.batch == 1 else 16  # with fewer, several processes wait for each other
    against = asked.against or ("noop" if asked.batch == 1 else "sqlite")
    told: list[dict[str, float]] = []
    yardstick: list[float] = []
    turnout, other = Turnout(asked.workers), {"noop": Noop, "one": Turnout}.get(against, Nothing)()

    def posted(url: str, number: int) -> dict[str, float]:
        first = number * 10**9 + os.getpid()
        found = load(url, body=body, seconds=asked.seconds, connections=connections, first=first)
        assert set(found["statuses"]) == {"200"}, found  # type: ignore[arg-type]  # decoded JSON
        return {**found, "rate": found["answered"] / found["seconds"]}

    try:
        for number in range(asked.rounds):
            if against == "sqlite":
                yardstick.append(raw_sqlite(one.encode(), asked.seconds, asked.batch) / asked.batch)
            else:
                yardstick.append(posted(other.url, number)["rate"])
            told.append(posted(turnout.url, number))
    finally:
        turnout.stop()
        other.stop()
    median = statistics.median
    ours = median(each["rate"] for each in told)
    print(
        json.dumps(
            {
                "name": "accept",
                "batch": asked.batch,
                "workers": asked.workers,
                "against": against,
                "ratio": round(ours / median(yardstick), 3),
                "events_s": round(asked.batch * ours),
                "yardstick_s": round(asked.batch * median(yardstick)),
                "p50_ms": round(median(each["p50"] for each in told), 1),
                "p99_ms": round(median(each["p99"] for each in told), 1),
                "rounds": asked.rounds,
            }
        )
    )


if __name__ == "__main__":
    main()
