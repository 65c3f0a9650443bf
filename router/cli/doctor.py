"""``turnout doctor``: what on this machine may break the promise, each with its remedy. It looks, and changes nothing.

The sentences about SQLite are of its own pages: sqlite.org/wal.html ("The WAL-Reset Bug"; WAL does not work over a
network filesystem) and sqlite.org/howtocorrupt.html.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from router.cli import DONE, FAILED, USAGE
from router.cli.files import directory, document
from router.cli.options import config_option, json_option, settings_of
from router.cli.output import coloured, line
from router.outbox import SQLITE
from router.terminal import escaped
from router.wording import counted

if TYPE_CHECKING:
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.snapshots import Snapshots
    from router.settings import Settings

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "vboxsf", "fuse.sshfs"})
MEMORY = frozenset({"tmpfs", "ramfs"})
LEAST_SPACE = 200 << 20  # bytes free, where the configuration does not say
LARGE_WAL = 256 << 20
EARLIEST = 1_700_000_000_000  # UTC ms; a machine without a clock starts before
AHEAD = 300_000  # ms that an event may come from the future
CHECKING = 20.0  # seconds for SQLite's own check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}

Level = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    level: Level
    subject: str
    words: str
    fix: str | None = None


@click.command("doctor")
@config_option
@json_option
def command(path: Path, as_json: bool) -> None:
    """Look for what may go wrong: Python, SQLite, disk, permissions, clock, files, ledger.

    Exits 1 where something must be mended, 2 where there is no configuration.
    """
    failed = False
    for finding in examined(path):
        failed |= finding.level == "fail"
        if as_json:
            line(finding._asdict())
        else:
            _print(finding)
    sys.exit(DONE if not failed else FAILED if path.exists() else USAGE)


def _print(finding: Finding) -> None:
    level = click.style(f"{finding.level:4}", fg=_COLOURS[finding.level])
    click.echo(f"{level}  {finding.subject:12}  {escaped(finding.words)}", color=coloured(sys.stdout))
    if finding.fix is not None:
        click.echo(f"{'':20}fix: {escaped(finding.fix)}")


def examined(path: Path) -> Iterator[Finding]:
    """Every finding, as it is made: the slow ones come last."""
    from router.outbox.errors import OutboxError
    from router.outbox.reads.snapshots import readable

    yield of_python(sys.version_info[:3])
    yield of_sqlite(SQLITE)
    settings = settings_of(path)
    yield _of_config(path, *settings)
    if document(path) is None:
        return
    outbox = directory(path)
    yield of_file_system(file_system(outbox, _mounts()))
    try:
        there = readable(outbox / "state.db")
    except OutboxError:
        fix = "run turnout doctor as the user that runs turnout serve"
        yield Finding("fail", "outbox", f"{outbox} is not this user's to read", fix)
        return
    if not there:
        yield Finding(
            "warn", "outbox", f"there is none in {outbox} yet", "turnout serve makes it; or mend [outbox] path"
        )
        return
    yield from _of_room(outbox, settings[0])
    yield from _of_permissions(outbox)
    yield _of_owner(outbox)
    yield of_wal(sum(_size(each) for each in _files(outbox) if each.name.endswith("-wal")))
    yield from _of_contents(outbox)


# The program and the machine


def of_python(version: Sequence[int]) -> Finding:
    shown = ".".join(map(str, version))
    if tuple(version) < (3, 11):
        return Finding("fail", "python", shown, "install Python 3.11 or later")
    return Finding("ok", "python", f"{shown}, {platform.system()}")


def of_sqlite(version: Sequence[int]) -> Finding:
    """Versions 3.7.0 to 3.51.2 can damage a WAL when two connections write or checkpoint at the same instant."""
    shown = ".".join(map(str, version))
    branch, patch = tuple(version[:2]), version[2]
    mended = tuple(version) >= (3, 51, 3) or (branch == (3, 50) and patch >= 7) or (branch == (3, 44) and patch >= 6)
    if mended:
        return Finding("ok", "sqlite", shown)
    return Finding(
        "warn",
        "sqlite",
        f"{shown} has the WAL-reset bug; one writer only, as here, does not meet it",
        "let no other program write the outbox; SQLite 3.51.3, 3.50.7 or 3.44.6 mends it",
    )


def _of_config(path: Path, settings: Settings | None, findings: Sequence[object]) -> Finding:
    if not path.exists():
        return Finding("fail", "config", f"there is no {path}", "name it with --config PATH or $TURNOUT_CONFIG")
    if settings is None:
        return Finding("fail", "config", f"{path} has errors", "turnout check says which")
    if findings:
        return Finding("warn", "config", f"{path} has warnings", "turnout check says which")
    return Finding("ok", "config", str(path))


# The disk


def _mounts() -> str:
    """The kernel's table of mounts; empty where there is none to read (macOS)."""
    try:
        return Path("/proc/mounts").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def file_system(outbox: Path, mounts: str) -> str | None:
    """The type of the file system under a path, from a table in the form of /proc/mounts; None where it does not say."""
    place = os.path.realpath(outbox)
    best, kind = -1, None
    for row in mounts.splitlines():
        fields = row.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
        if os.path.commonpath([place, point]) == point and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind


def of_file_system(kind: str | None) -> Finding:
    if kind is None:
        return Finding("warn", "file system", "its type cannot be told", "keep the outbox on a local disk")
    if kind in NETWORK:
        return Finding(
            "fail",
            "file system",
            f"{kind}: SQLite's WAL does not work over a network",
            "set [outbox] path to a local disk",
        )
    if kind in MEMORY:
        return Finding(
            "fail", "file system", f"{kind}: it is gone after a restart of the machine", "set [outbox] path to a disk"
        )
    if kind == "overlay" or kind.startswith("fuse"):
        return Finding(
            "warn", "file system", f"{kind}: a container's own layer goes with the container", "mount a volume there"
        )
    return Finding("ok", "file system", kind)


def _free(outbox: Path) -> int:
    import shutil

    return shutil.disk_usage(outbox).free


def _of_room(outbox: Path, settings: Settings | None) -> Iterator[Finding]:
    from router.outbox.disk import space
    from router.outbox.disk.lock import holder
    from router.settings import size

    if settings is None:
        yield of_space(_free(outbox))
        return
    yield of_space(_free(outbox), size(settings.outbox.min_free))
    if holder(outbox) is not None:
        yield of_ballast(whole=space.whole(outbox / space.FILE, size(settings.outbox.ballast)))


def of_ballast(*, whole: bool) -> Finding:
    if not whole:
        fix = "free some space: it is made anew, and events are accepted again, within seconds"
        return Finding("fail", "ballast", "it is gone: the disk is full, and no event is accepted", fix)
    return Finding("ok", "ballast", "in reserve for a full disk")


def of_space(free: int, least: int = LEAST_SPACE) -> Finding:
    from router.outbox.disk.space import LITTLE

    words = f"{free >> 20} MiB free"
    if free < least:
        return Finding("fail", "disk", words, f"free some: below {least >> 20} MiB no event is accepted")
    if free < LITTLE * least:
        return Finding(
            "warn", "disk", words, "free some, or move [outbox] path to a larger disk: nothing is deleted from it"
        )
    return Finding("ok", "disk", words)


def _of_permissions(outbox: Path) -> Iterator[Finding]:
    open_ones = [each for each in (outbox, *_files(outbox)) if _mode(each) & 0o077]
    if open_ones:
        yield Finding(
            "fail", "permissions", f"open to other users: {len(open_ones)} of its files", f"chmod -R go= {outbox}"
        )
    else:
        yield Finding("ok", "permissions", "only its owner can read it")


def _files(outbox: Path) -> Iterator[Path]:
    """The outbox's own files; what is else in the directory is not judged."""
    for pattern in ("lock", "state.db*", "log", "log/*.db*"):
        yield from outbox.glob(pattern)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:  # a WAL goes when it is folded in
        return 0


def _of_owner(outbox: Path) -> Finding:
    from router.outbox.disk.lock import holder

    process = holder(outbox)
    return Finding("ok", "owner", "nobody: the server is not running" if process is None else f"process {process}")


def of_wal(size: int) -> Finding:
    words = f"{size >> 20} MiB"
    if size > LARGE_WAL:
        return Finding("warn", "wal", words, "end whatever reads the files for long (a backup, a shell in sqlite3)")
    return Finding("ok", "wal", words)


# What is in it


def _of_contents(outbox: Path) -> Iterator[Finding]:
    import asyncio

    from router.outbox.errors import OutboxError
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.snapshots import Snapshots

    try:
        yield from asyncio.run(_read(Reader(outbox), Snapshots(outbox)))
    except OutboxError as error:
        yield Finding("fail", "outbox", str(error), "restore it from a backup, or use the version that wrote it")


async def _read(reader: Reader, files: Snapshots) -> list[Finding]:
    newest = (await reader.recent(1)).items
    found = [of_clock(time.time_ns() // 1_000_000, int(newest[0].received.timestamp() * 1000) if newest else None)]
    checks = await files.check(CHECKING)
    wrong = [f"{each.file} is {each.verdict}" for each in checks if each.verdict in {"damaged", "missing"}]
    unfinished = [each for each in checks if each.verdict == "unfinished"]
    if wrong:
        found.append(Finding("fail", "files", ", ".join(wrong), "restore them from a backup"))
        return found
    looked = f"{len(checks) - len(unfinished)} of {counted(len(checks), 'file')} looked through"
    found.append(Finding("ok", "files", f"{looked}, all whole"))
    ledger, differences = await reader.ledger(), await reader.recount()
    if ledger.difference or differences:
        places = ", ".join(dict.fromkeys(each.where for each in differences)) or "the sum"
        fix = "turnout ledger --verify says where; keep a copy of the outbox and report it"
        found.append(Finding("fail", "ledger", f"it does not come out: {places}", fix))
    else:
        found.append(Finding("ok", "ledger", f"{counted(ledger.accepted, 'event')}, every one accounted for"))
    return found


def of_clock(now: int, newest: int | None) -> Finding:
    if now < EARLIEST:
        return Finding("fail", "clock", "it is years behind", "set the clock, and keep it set with NTP")
    if newest is not None and newest > now + AHEAD:
        return Finding(
            "fail", "clock", "the newest event is of the future: the clock was moved", "keep it set with NTP"
        )
    return Finding("ok", "clock", "plausible")
