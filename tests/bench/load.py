"""The load generator of the benches: HTTP/1.1 over kept connections, in a process and on a core of its own.

``python -m tests.bench.load URL`` with JSON settings on stdin prints one JSON line: requests answered, by status, the
seconds it took and the latencies' percentiles in ms. Closed loop: every connection sends its next request when the last
was answered; with ``rate`` open loop: requests leave by the clock, and waiting for a free connection counts as latency.

It is C (``load.c``), built when it is first used: one in Python takes as much of a core as the server that it measures.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

MARK = "@" * 36  # replaced by a UUID, so that every event has an id of its own
SOURCE = Path(__file__).with_suffix(".c")


class Settings(msgspec.Struct):
    body: str
    seconds: float = 5.0
    connections: int = 64
    rate: float | None = None
    headers: dict[str, str] = {}
    first: int = 0


def program() -> str:
    """The path of the built program."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"turnout-load-{os.getuid()}-{digest}"
    if not built.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            sys.exit("there is no C compiler here: install cc or gcc")
        part = f"{built}.{os.getpid()}"
        subprocess.run([compiler, "-O2", "-o", part, str(SOURCE)], check=True)
        Path(part).replace(built)
    return str(built)


def request(url: str, settings: Settings) -> bytes:
    parts = urlsplit(url)
    body = settings.body.encode()
    lines = [f"POST {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.hostname}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in settings.headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def main() -> None:
    url, settings = sys.argv[1], msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    parts = urlsplit(url)
    how = (parts.hostname, parts.port, settings.seconds, settings.connections, settings.rate or 0, settings.first)
    ended = subprocess.run([program(), *map(str, how)], input=request(url, settings), check=False)
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
