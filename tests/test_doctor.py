"""The doctor: every fault it knows is found, with a remedy; a sound machine is left alone."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router import cli
from router.cli import doctor
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Mark
from tests.builders import NOW, many
from tests.stepped import SteppedClock


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """An outbox with a few events, at rest."""

    async def filled() -> None:
        store = await Outbox.open(tmp_path / "outbox", SteppedClock(), segment_events=2)
        lane = await store.lane("hook", "webhook")
        for number in range(1, 6):
            await store.append(many(1, start=number, received=1_780_000_000_000))
        await store.settle(lane, [Mark(seqs=[1, 2], state="delivered", at=NOW, attempts=1)])
        await store.close()

    asyncio.run(filled())
    (tmp_path / "config.toml").write_text(
        f'[outbox]\npath = "{tmp_path / "outbox"}"\n[sources.shop]\ntokens = ["sha256:{"0" * 64}"]\n'
    )
    return tmp_path / "outbox"


def findings(outbox: Path) -> tuple[int, dict[str, dict[str, str]]]:
    result = CliRunner().invoke(cli.turnout, ["doctor", "--config", str(outbox.parent / "config.toml"), "--json"])
    found = [json.loads(each) for each in result.stdout.splitlines()]
    return result.exit_code, {each["subject"]: each for each in found}


class TestCommand:
    def test_a_sound_outbox_has_no_failure(self, outbox: Path):
        """
        Every subject is looked at, and nothing of a sound outbox fails.
        """
        _, found = findings(outbox)

        subjects = [
            "python",
            "sqlite",
            "config",
            "file system",
            "disk",
            "permissions",
            "owner",
            "wal",
            "clock",
            "files",
            "ledger",
        ]
        assert subjects == list(found)
        judged = {subject: found[subject]["level"] for subject in ("permissions", "owner", "clock", "files", "ledger")}
        assert {"ok"} == set(judged.values())
        assert "5 events, every one accounted for" == found["ledger"]["words"]

    def test_it_is_read_by_people(self, outbox: Path):
        """
        Without --json each finding is a line, and what is not well has its fix below.
        """
        (outbox / "state.db").chmod(0o644)
        result = CliRunner().invoke(cli.turnout, ["doctor", "--config", str(outbox.parent / "config.toml")])

        assert "fail  permissions   open to other users: 1 of its files" in result.stdout
        assert f"fix: chmod -R go= {outbox}" in result.stdout

    def test_open_files_fail(self, outbox: Path):
        """
        Files that others may read are a failure.
        """
        outbox.chmod(0o755)

        code, found = findings(outbox)
        assert (1, "fail") == (code, found["permissions"]["level"])

    @pytest.mark.parametrize("below", ["outbox/state.db", "outbox"], ids=["its files", "its directory"])
    def test_an_outbox_of_another_user_fails(self, outbox: Path, monkeypatch: pytest.MonkeyPatch, below: str):
        """
        Whoever may not read it is told as whom to look, by the doctor and by every command that reads.
        """
        real_access, real_stat = os.access, Path.stat

        def access(path: Path, mode: int) -> bool:
            return "outbox/state.db" not in str(path) and real_access(path, mode)

        def look(self: Path, **more: Any) -> os.stat_result:
            if f"{below}/" in str(self):
                raise PermissionError(13, "Permission denied")
            return real_stat(self, **more)

        monkeypatch.setattr(os, "access", access)
        monkeypatch.setattr(Path, "stat", look)
        code, found = findings(outbox)
        assert (1, "fail", "outbox") == (code, found["outbox"]["level"], list(found)[-1])
        assert "as the user that runs turnout serve" in found["outbox"]["fix"]
        told = CliRunner().invoke(cli.turnout, ["ledger", "--config", str(outbox.parent / "config.toml")])
        assert (1, True) == (told.exit_code, "as the user that runs turnout serve" in told.stderr)

    def test_a_damaged_file_fails(self, outbox: Path):
        """
        Bytes that SQLite cannot make sense of are found, and the file is named.
        """
        path = outbox / "log" / "00000001.db"
        content = bytearray(path.read_bytes())
        content[8192:16384] = b"\xff" * 8192
        path.write_bytes(content)

        code, found = findings(outbox)
        assert (1, "fail", "00000001.db is damaged") == (code, found["files"]["level"], found["files"]["words"])

    @pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "empty"])
    @pytest.mark.parametrize("name", ["00000001.db", "00000003.db"])
    def test_a_lost_file_fails(self, outbox: Path, name: str, damage: Callable[[Path], object]):
        """
        A segment that is gone or empty is named, be it the newest, without which no server starts.
        """
        damage(outbox / "log" / name)

        code, found = findings(outbox)
        assert (1, "fail", f"{name} is missing") == (code, found["files"]["level"], found["files"]["words"])

    def test_a_lost_row_fails(self, outbox: Path):
        """
        Books that do not add up are a failure that names the destination.
        """
        with sqlite3.connect(outbox / "state.db") as connection:
            connection.execute("DELETE FROM run")
        connection.close()

        code, found = findings(outbox)
        assert (1, "fail", "it does not come out: hook") == (code, found["ledger"]["level"], found["ledger"]["words"])

    def test_a_running_owner_is_named(self, outbox: Path):
        """
        The process that holds the outbox is shown by its number, and the looking does not disturb it.
        """
        import os

        async def beside() -> dict[str, dict[str, str]]:
            store = await Outbox.open(outbox, SteppedClock())
            _, found = await asyncio.to_thread(findings, outbox)
            await store.append(many(1, start=99))
            await store.close()
            return found

        assert f"process {os.getpid()}" == asyncio.run(beside())["owner"]["words"]

    def test_before_the_first_start(self, tmp_path: Path):
        """
        No outbox yet is a warning with the next step, not a failure.
        """
        (tmp_path / "config.toml").write_text(f'[outbox]\npath = "{tmp_path / "none"}"\n')

        _, found = findings(tmp_path / "none")
        assert ("warn", True) == (found["outbox"]["level"], "turnout serve" in found["outbox"]["fix"])

    def test_a_missing_configuration_is_said_to_be_missing(self, tmp_path: Path):
        """
        Where there is no file that is what is said, once.
        """
        path = tmp_path / "none.toml"
        result = CliRunner().invoke(cli.turnout, ["doctor", "--config", str(path)])

        last = result.stdout.splitlines()[-2:]
        assert f"fail  config        there is no {path}" == last[0]
        assert "name it with --config PATH" in last[1]
        assert (2, "") == (result.exit_code, result.stderr)

    def test_a_wrong_configuration_fails(self, outbox: Path):
        """
        A configuration with errors is a failure, and the rest is still looked at.
        """
        (outbox.parent / "config.toml").write_text(f'[outbox]\npath = "{outbox}"\nkeep = 1\n')

        code, found = findings(outbox)
        assert (1, "fail", "ok") == (code, found["config"]["level"], found["ledger"]["level"])


class TestRules:
    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            ((3, 51, 3), "ok"),
            ((3, 52, 0), "ok"),
            ((3, 50, 7), "ok"),
            ((3, 44, 6), "ok"),
            ((3, 51, 2), "warn"),
            ((3, 50, 4), "warn"),
            ((3, 45, 9), "warn"),
            ((3, 40, 1), "warn"),
        ],
        ids=str,
    )
    def test_the_wal_reset_bug(self, version: Sequence[int], expected: str):
        """
        Mended in 3.51.3, 3.50.7 and 3.44.6 and in what follows them on their branch; everything else has it.
        """
        assert expected == doctor.of_sqlite(version).level

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("ext4", "ok"),
            ("xfs", "ok"),
            ("nfs4", "fail"),
            ("cifs", "fail"),
            ("tmpfs", "fail"),
            ("overlay", "warn"),
            (None, "warn"),
        ],
    )
    def test_file_systems(self, kind: str | None, expected: str):
        """
        Networks break SQLite's WAL and memory forgets; both fail. A container's layer is a warning.
        """
        finding = doctor.of_file_system(kind)
        assert expected == finding.level
        assert (finding.fix is None) == (expected == "ok")

    @pytest.mark.parametrize(
        ("place", "expected"),
        [
            pytest.param("/srv/outbox", "ext4", id="the root"),
            pytest.param("/srv/data/outbox", "nfs4", id="the longest mount point"),
            pytest.param("/srv/data2", "ext4", id="a name that begins like one"),
            pytest.param("/mnt/my disk/outbox", "xfs", id="a blank in its name"),
        ],
    )
    def test_where_a_path_is_mounted(self, place: str, expected: str):
        """
        The mount point nearest to the path decides; the kernel writes a blank in octal.
        """
        mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/x /srv/data nfs4 rw 0 0\n/dev/sdb1 /mnt/my\\040disk xfs rw 0 0\n"

        assert expected == doctor.file_system(Path(place), mounts)

    @pytest.mark.parametrize(
        ("finding", "expected"),
        [
            pytest.param(doctor.of_space(50 << 20), "fail", id="no space"),
            pytest.param(doctor.of_space(500 << 20), "warn", id="little space"),
            pytest.param(doctor.of_space(5 << 30), "ok", id="enough space"),
            pytest.param(doctor.of_space(50 << 20, 1 << 20), "ok", id="as much as the configuration asks for"),
            pytest.param(doctor.of_ballast(whole=False), "fail", id="the ballast is gone"),
            pytest.param(doctor.of_ballast(whole=True), "ok", id="a ballast"),
            pytest.param(doctor.of_wal(300 << 20), "warn", id="a large WAL"),
            pytest.param(doctor.of_wal(64 << 20), "ok", id="an ordinary WAL"),
            pytest.param(doctor.of_clock(0, None), "fail", id="no clock"),
            pytest.param(doctor.of_clock(NOW, NOW + 3_600_000), "fail", id="an event of the future"),
            pytest.param(doctor.of_clock(NOW, NOW), "ok", id="a clock"),
            pytest.param(doctor.of_python((3, 10, 4)), "fail", id="an old Python"),
        ],
    )
    def test_limits(self, finding: doctor.Finding, expected: str):
        """
        Each limit has its level, and what is not well has a remedy.
        """
        assert expected == finding.level
        assert (finding.fix is None) == (expected == "ok")
