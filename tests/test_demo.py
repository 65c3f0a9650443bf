"""The demo: it runs anywhere, ends cleanly, and its exit code is worth something."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner

from router.cli import turnout as command_line
from router.cli.demo import Look, sentence
from router.demo import TROUBLE, Answers, faults
from router.mocks import PARTNERS
from router.mocks.partner import Counts
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import LaneSum, Ledger
from tests.running import ROOT, turnout

STATES = ("delivered", "waiting", "filtered", "dead", "erased")


def there(path: Path) -> bool:
    return path.exists()


def last(out: str) -> dict[str, Any]:
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def finished() -> tuple[int, dict[str, Any]]:
    """Exit code and last object of a demo of 200 events."""
    arguments = [sys.executable, "-m", "router", "demo", "--events", "200", "--exit", "--json"]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, timeout=120, check=False)
    return ended.returncode, last(ended.stdout.decode())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Exit code, output and directory of a demo of 15 events that keeps its files."""
    directory = tmp_path_factory.mktemp("kept") / "a directory"
    arguments = [sys.executable, "-m", "router", "demo", "--events", "15", "--exit", "--keep", str(directory)]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, timeout=120, check=False)
    return ended.returncode, ended.stdout.decode(), directory


class TestRun:
    def test_everything_adds_up(self, finished: tuple[int, dict[str, Any]]):
        """
        200 events, and what senders do wrong beside them, end in a ledger without difference at all four partners.
        """
        code, end = finished
        ledger = end["ledger"]

        assert (0, []) == (code, end["faults"])
        assert (202, 200, 1, 1, 0) == tuple(
            ledger[word] for word in ("received", "accepted", "duplicate", "rejected", "difference")
        )
        assert set(PARTNERS) == set(ledger["destinations"]) == set(TROUBLE)
        for name, lane in ledger["destinations"].items():
            assert 200 == sum(lane[state] for state in STATES)
            assert 0 == lane["waiting"]
            assert lane["delivered"] == end["partners"][name]["distinct"]
            assert lane["delivered"] > 0

    def test_trouble_is_met_and_overcome(self, finished: tuple[int, dict[str, Any]]):
        """
        Partners did fail, one event was refused for its age, one was taken twice and recognised; nothing is missing.
        """
        _, end = finished

        assert [1] == list(end["dead"]["snap"].values())
        assert "TIMESTAMP_OUT_OF_RANGE" in next(iter(end["dead"]["snap"]))
        linktrace = end["partners"]["linktrace"]
        assert 1 == linktrace["events"] - linktrace["distinct"]
        assert sum(counts["troubled"] for counts in end["partners"].values()) > 1

    async def test_what_it_prints(self):
        """
        Without a terminal it is plain text: every address, a line to try, the table, and the sentence.
        """
        async with turnout("demo", "--events", "20", "--exit") as demo:
            code, out, err = await demo.ended()

        assert 0 == code
        for word in ("console", "ledger", "collect", "configuration", *(f"fake {name}" for name in TROUBLE)):
            assert any(line.startswith(word) for line in out.splitlines())
        assert "curl 'http://127.0.0.1:" in out
        assert "20 events accepted and every one accounted for at 5 destinations" in out
        assert "First delivery" in out
        assert "\x1b" not in out
        assert "is removed" in err

    async def test_it_counts_from_the_start_of_the_program(self):
        """
        What passed since router/__main__.py began is counted, whatever the process did before, and nothing is left out.
        """
        earlier = "import router.__main__\nrouter.__main__.BEGAN -= 100_000"
        async with turnout("demo", "--events", "1", "--exit", "--json", code=earlier) as demo:
            _, out, _ = await demo.ended()

        assert 100_000 < last(out)["first_delivery"] <= last(out)["elapsed"] < 200_000

    def test_the_line_that_explains(self, kept: tuple[int, str, Path]):
        """
        The line that looks into the first event is printed whole, and does what it says.
        """
        _, out, _ = kept
        program, *arguments = shlex.split(next(line for line in out.splitlines() if " explain " in line))

        assert "turnout" == program
        assert "received" in CliRunner().invoke(command_line, arguments).output

    async def test_its_addresses_answer(self):
        """
        While it runs, its console gives the ledger, a fake partner what it received, and collect takes an event.
        """
        async with turnout("demo", "--json") as demo, aiohttp.ClientSession() as session:
            start = await demo.object()
            async with session.get(start["ledger"]) as answer:
                assert {"snap", "linktrace", "ipsnare", "commandersact", "webhook"} == (await answer.json())[
                    "destinations"
                ].keys()
            async with session.get(start["fake webhook"]) as answer:
                assert 200 == answer.status
            _, url, _, body, _ = start["curl"].split("'")
            async with session.post(url, data=body) as answer:
                assert 1 == (await answer.json())["accepted"]
            demo.signal(signal.SIGTERM)
            code, _, _ = await demo.ended(10)

        assert 0 == code

    async def test_ctrl_c(self):
        """
        Ctrl-C in full flow ends it within ten seconds, exit code 0, with a last word and without its directory.
        """
        async with turnout("demo", "--json") as demo:
            start, first = await demo.object(), await demo.object()
            directory = Path(start["configuration"]).parent
            existed = there(directory)
            demo.signal(signal.SIGINT)
            code, out, err = await demo.ended(10)

        assert ("progress", 0) == (first["type"], code)
        assert ("finished", 0) == (last(out)["type"], last(out)["ledger"]["difference"])
        assert existed
        assert not there(directory)
        assert "Traceback" not in err

    def test_nobody_reads_any_more(self):
        """
        A closed pipe (``turnout demo | head``) ends it, without a trace and without its directory.
        """
        arguments = [sys.executable, "-m", "router", "demo"]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
            assert demo.stdout is not None
            assert demo.stderr is not None
            addresses = dict(demo.stdout.readline().decode().rsplit(maxsplit=1) for _ in range(9))
            demo.stdout.close()
            err = demo.stderr.read().decode()
            code = demo.wait(30)

        assert (1, "") == (code, err)
        assert "Traceback" not in err
        assert not there(Path(addresses["configuration"]).parent)

    async def test_kept_files(self, kept: tuple[int, str, Path]):
        """
        With --keep the directory stays: a configuration that ``check`` finds no error in, and a readable outbox.
        """
        code, _, directory = kept

        checked = CliRunner().invoke(command_line, ["check", "--config", str(directory / "config.toml")])
        assert 0 == code
        assert 0 == checked.exit_code
        assert 15 == (await Reader(directory / "outbox").ledger()).accepted

    def test_it_writes_over_nothing(self, tmp_path: Path):
        """
        A directory that holds anything is refused, for its config.toml would be lost; so is one that cannot be made.
        """
        own = tmp_path / "config.toml"
        own.write_text("mine")
        for place in (tmp_path, own / "below"):
            refused = CliRunner().invoke(command_line, ["demo", "--events", "1", "--exit", "--keep", str(place)])

            assert (2, "mine") == (refused.exit_code, own.read_text())
            assert "name an" in refused.output


class TestControls:
    """The exit code is not a constant: each of these demos is sabotaged, and must say so."""

    async def test_a_partner_that_never_takes(self):
        """
        A partner that refuses for ever leaves events waiting, and the demo fails and names it.
        """
        sabotage = (
            "import router.demo, router.cli.demo\n"
            "from router.mocks.partner import Trouble\n"
            "router.demo.TROUBLE = {**router.demo.TROUBLE, 'ipsnare': [Trouble(status=500)]}\n"
            "router.cli.demo.PATIENCE = 1.0\n"
        )
        async with turnout("demo", "--events", "30", "--exit", "--json", code=sabotage) as demo:
            code, out, _ = await demo.ended()

        assert 1 == code
        assert any("ipsnare" in fault and "waiting" in fault for fault in last(out)["faults"])

    async def test_a_partner_that_lies(self):
        """
        A partner that says yes and keeps nothing is found out by its own account.
        """
        sabotage = (
            "import router.demo\n"
            "from router.mocks.partner import Trouble\n"
            "router.demo.TROUBLE = {**router.demo.TROUBLE, 'webhook': [Trouble(status=204, times=1)]}\n"
        )
        async with turnout("demo", "--events", "30", "--exit", "--json", code=sabotage) as demo:
            code, out, _ = await demo.ended()

        assert (1, ["webhook: 30 delivered, the partner took 29"]) == (code, last(out)["faults"])


def a_lane(**changes: Any) -> LaneSum:
    good = {"delivered": 8, "waiting": 0, "filtered": 1, "dead": 1, "erased": 0}
    return LaneSum(**{**good, "held": False, "hold_reason": None, "hold_until": None, **changes})


def a_ledger(lane: LaneSum | None = None, **changes: Any) -> Ledger:
    good = {"received": 12, "duplicate": 1, "rejected": 1, "accepted": 10, "difference": 0}
    return Ledger(**{**good, "destinations": {"snap": lane or a_lane()}, **changes})


TOLD = Answers(accepted=10, duplicate=1, rejected=1)
TAKEN = {"snap": Counts(events=9, distinct=8)}
REASONS = {"snap": Counter({"too old": 1})}


class TestFaults:
    def test_none(self):
        """
        Three accounts that agree have no fault; what a partner took twice is still one event.
        """
        assert [] == faults(a_ledger(), TOLD, TAKEN, REASONS)

    @pytest.mark.parametrize(
        ("ledger", "told", "taken", "reasons", "words"),
        [
            (a_ledger(difference=2), TOLD, TAKEN, REASONS, "difference of 2"),
            (a_ledger(), Answers(accepted=11, duplicate=1, rejected=1), TAKEN, REASONS, "told of 11 accepted"),
            (a_ledger(), Answers(accepted=10, duplicate=1), TAKEN, REASONS, "told of 0 rejected"),
            (a_ledger(a_lane(filtered=0, waiting=1)), TOLD, TAKEN, REASONS, "snap: 1 still waiting"),
            (a_ledger(a_lane(filtered=0)), TOLD, TAKEN, REASONS, "10 accepted, 9 delivered, filtered or"),
            (a_ledger(), TOLD, {"snap": Counts(distinct=7)}, REASONS, "the partner took 7"),
            (a_ledger(), TOLD, {**TAKEN, "other": Counts(distinct=1)}, REASONS, "other: 0 delivered"),
            (a_ledger(), TOLD, TAKEN, {"snap": Counter({"": 3})}, "snap: 3 dead without a reason"),
        ],
        ids=[
            "the ledger does not come out",
            "the shop was promised more",
            "the shop was told less",
            "something still waits",
            "an event is nowhere",
            "the partner took fewer",
            "a partner that nothing was sent to took one",
            "nobody knows why",
        ],
    )
    def test_one(self, ledger: Ledger, told: Answers, taken: Any, reasons: Any, words: str):
        """
        Whatever does not agree is one sentence that says where.
        """
        (fault,) = faults(ledger, told, taken, reasons)

        assert words in fault

    def test_the_last_word(self):
        """
        The sentence at the end is that of success only where faults were looked for and none was found.
        """
        look = Look(elapsed=1.0, first_delivery=0.5, ledger=a_ledger(), partners=TAKEN)

        assert "every one accounted for" in sentence(look, [])
        assert "It does not add up: a; b." == sentence(look, ["a", "b"])
        assert "Ended after 10 events" in sentence(look, None)
        one = Look(elapsed=1.0, first_delivery=0.5, ledger=a_ledger(accepted=1), partners=TAKEN)
        assert "Ended after 1 event;" in sentence(one, None)
        assert "1 event accepted and every one accounted for at 1 destination:" in sentence(one, [])
        assert msgspec.json.encode(look)
