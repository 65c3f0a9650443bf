"""``turnout demo``: the whole product at work, with partners of its own. Needs no configuration, network or rights."""

from __future__ import annotations

import random
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

from router.cli import BEGAN, DONE, FAILED
from router.cli.options import json_option
from router.cli.output import line, table
from router.wording import counted

if TYPE_CHECKING:
    import asyncio

    from rich.table import Table

    from router.demo import Demo
    from router.mocks.partner import Counts
    from router.outbox.reads.views import LaneSum, Ledger

SHOWN_RATE = 20.0  # events a second, to look at
FAST_RATE = 200.0  # with --exit
EVENTS = 1000  # with --exit and without --events
PATIENCE = 30.0  # seconds in which nothing moves, after which what still waits counts as left behind

_STATES = ("delivered", "waiting", "filtered", "dead")


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The demo at one moment. ``elapsed`` and ``first_delivery`` are seconds since the program began."""

    elapsed: float
    first_delivery: float | None
    ledger: Any  # router.outbox.reads.views.Ledger, which --help does not wait for
    partners: dict[str, Any]  # name -> router.mocks.partner.Counts


class Screen(Protocol):
    """Where the demo is shown: a terminal, a pipe, or a program."""

    def started(self, demo: Demo) -> None: ...

    def progress(self, look: Look) -> None: ...

    def finished(self, look: Look, reasons: dict[str, Any], faults: list[str] | None) -> None:
        """``faults`` None: it was ended before it was done."""
        ...


@click.command("demo")
@click.option("--events", type=click.IntRange(1, 1_000_000), help="Send so many; else without end.")
@click.option("--exit", "leave", is_flag=True, help="End when all are delivered; 0 only if everything adds up.")
@click.option("--seed", type=int, default=1, help="Another seed, another stream.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the files, in this directory.")
@json_option
@click.pass_context
def command(ctx: click.Context, events: int | None, leave: bool, seed: int, keep: Path | None, as_json: bool) -> None:
    """See it work: a shop that sends, five fake partners that misbehave a little, and Turnout in between.

    Ctrl-C ends it. Nothing is left behind, unless --keep names a directory.
    """
    import asyncio

    from router import logs
    from router.cli.serve import loop_factory

    if keep is not None:
        _need_empty(keep)
    began = ctx.meta.get(BEGAN) or time.monotonic()
    logs.configure("error", sys.stderr)
    directory = keep or Path(tempfile.mkdtemp(prefix="turnout-demo-"))
    screen = _screen(as_json=as_json)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            total = events or (EVENTS if leave else None)
            code = runner.run(_run(directory, total, seed, screen, began, leave=leave))
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    click.echo(f"Everything is in {keep}." if keep else f"{directory} is removed.", err=True)
    sys.exit(code)


def _need_empty(keep: Path) -> None:
    """The demo writes a config.toml and secrets there: nothing of anybody's may stand in their place."""
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = any(keep.iterdir())
    except OSError as error:
        why = (error.strerror or "").lower()
        raise click.UsageError(f"the directory of --keep cannot be made or read: {why}: name another") from None
    if taken:
        raise click.UsageError("the directory of --keep is not empty: name an empty or a new one")


def _screen(*, as_json: bool) -> Screen:
    if as_json:
        return _Lines()
    return _Terminal() if sys.stdout.isatty() else _Pipe()


async def _run(directory: Path, events: int | None, seed: int, screen: Screen, began: float, *, leave: bool) -> int:
    import asyncio

    from router.app import stop_on_signal
    from router.demo import demo, faults

    stop = asyncio.Event()
    stop_on_signal(stop)
    async with demo(directory, seed=seed) as running:
        screen.started(running)
        watch = Watch(running, began)
        work = asyncio.create_task(_work(running, events, seed, stop, leave=leave))
        showing = asyncio.create_task(watch.every_second(screen))
        stopped = asyncio.create_task(stop.wait())
        first = asyncio.create_task(watch.first())
        await asyncio.wait({work, showing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        tasks: set[asyncio.Task[Any]] = {work, showing, stopped, first}
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)
        for each in (showing, work):  # a pipe that nobody reads any more, a fault of ours
            if not each.cancelled():
                each.result()
        look, reasons = await watch.look(), await running.reasons()
        found = faults(look.ledger, running.told, look.partners, reasons) if leave and not work.cancelled() else None
        screen.finished(look, reasons, found)
    if not leave:
        return DONE
    return DONE if found == [] else FAILED


async def _work(running: Demo, events: int | None, seed: int, stop: asyncio.Event, *, leave: bool) -> None:
    dice = random.Random(seed)  # noqa: S311 - people and purchases of a sample
    await running.send(events, rate=FAST_RATE if leave else SHOWN_RATE, dice=dice)
    await (running.settled(PATIENCE) if leave else stop.wait())


class Watch:
    """Looks at the demo."""

    def __init__(self, demo: Demo, began: float) -> None:
        self._demo, self._began = demo, began
        self._first: float | None = None

    async def first(self) -> None:
        await self._demo.first_delivery()
        self._first = self._elapsed()

    async def look(self) -> Look:
        return Look(
            elapsed=self._elapsed(),
            first_delivery=self._first,
            ledger=await self._demo.reader.ledger(),
            partners={name: partner.counts for name, partner in self._demo.partners.items()},
        )

    async def every_second(self, screen: Screen) -> None:
        import asyncio

        while True:
            await asyncio.sleep(1)
            screen.progress(await self.look())

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._began, 2)


def addresses(demo: Demo) -> dict[str, str]:
    """What to open: the label and the address."""
    return {
        "console": f"{demo.console}/",
        "ledger": f"{demo.console}/api/v1/ledger",
        "collect": f"{demo.collect}/collect",
        **{f"fake {name}": f"{url}/received" for name, url in demo.urls.items()},
        "configuration": str(demo.directory / "config.toml"),
    }


def curl(demo: Demo) -> str:
    from router.demo import SHOP_TOKEN

    body = '{"event": "sign_up", "link_short_code": "SUMMER24", "user": {"email": "jane@example.com"}}'
    return f"curl '{demo.collect}/collect?token={SHOP_TOKEN}' -d '{body}'"


def explain(demo: Demo) -> str:
    """The line as it can be typed where the demo was: in an environment that is not active, by the program's path."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "turnout" else "turnout"
    return shlex.join([program, "explain", "#1", "--config", str(demo.directory / "config.toml")])


def sentence(look: Look, faults: list[str] | None) -> str:
    """The end of it, in one sentence."""
    if faults:
        return "It does not add up: " + "; ".join(faults) + "."
    events, lanes = counted(look.ledger.accepted, "event"), counted(len(look.ledger.destinations), "destination")
    if faults is None:
        return f"Ended after {events}; the ledger's difference is {look.ledger.difference}."
    return (
        f"{events} accepted and every one accounted for at {lanes}: the ledger's difference is 0, "
        "and what the partners took is what counts as delivered."
    )


def _note(lane: LaneSum, counts: Counts, reasons: dict[str, int]) -> str:
    """Why a lane stands as it does: its hold, what came twice, why events are dead."""
    notes = [f"on hold: {lane.hold_reason}"] if lane.held else []
    if again := counts.events - counts.distinct:
        notes.append(f"{again} taken twice, the answer was lost and its dedup key told")
    if counts.troubled:
        notes.append(f"{counted(counts.troubled, 'call')} met trouble")
    return "; ".join([*notes, *(f"{count} dead: {reason}" for reason, count in reasons.items())])


def _rows(look: Look, reasons: dict[str, Any]) -> list[list[object]]:
    return [
        [name, *(getattr(lane, state) for state in _STATES), _note(lane, look.partners[name], reasons.get(name, {}))]
        for name, lane in look.ledger.destinations.items()
    ]


_HEADINGS = ("destination", *_STATES, "note")


def _summary(ledger: Ledger) -> str:
    return (
        f"received {ledger.received} = accepted {ledger.accepted} + duplicate {ledger.duplicate} "
        f"+ rejected {ledger.rejected}, difference {ledger.difference}"
    )


class _Pipe:
    """Plain lines, one a second."""

    def started(self, demo: Demo) -> None:
        for label, address in addresses(demo).items():
            click.echo(f"{label:18} {address}")
        click.echo(f"\nSend one yourself:\n  {curl(demo)}")
        click.echo(
            f"See what became of the first event, or of any other id:\n  {explain(demo)}\nCtrl-C ends the demo.\n"
        )

    def progress(self, look: Look) -> None:
        lanes = "  ".join(
            f"{name} {'/'.join(str(getattr(lane, state)) for state in _STATES)}"
            for name, lane in look.ledger.destinations.items()
        )
        click.echo(f"{look.elapsed:5.1f} s  accepted {look.ledger.accepted}  {'/'.join(_STATES)}: {lanes}")

    def finished(self, look: Look, reasons: dict[str, Any], faults: list[str] | None) -> None:
        click.echo()
        table(_HEADINGS, _rows(look, reasons))
        click.echo(_summary(look.ledger))
        if look.first_delivery is not None:
            click.echo(f"First delivery {look.first_delivery:.1f} s after the start of the program.")
        click.echo(sentence(look, faults))


class _Terminal(_Pipe):
    """One table that is drawn again every second."""

    def started(self, demo: Demo) -> None:
        from rich.live import Live

        super().started(demo)
        self._live = Live(auto_refresh=False, transient=True)
        self._live.start()

    def progress(self, look: Look) -> None:
        self._live.update(self._table(look), refresh=True)

    def finished(self, look: Look, reasons: dict[str, Any], faults: list[str] | None) -> None:
        self._live.stop()
        super().finished(look, reasons, faults)

    def _table(self, look: Look) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*_HEADINGS, box=box.SIMPLE_HEAD, pad_edge=False, caption=_summary(look.ledger))
        for row in _rows(look, {}):
            drawn.add_row(*(Text(str(cell)) for cell in row))
        return drawn


class _Lines:
    """One object a line: ``started``, then ``progress`` every second, then ``finished``."""

    def started(self, demo: Demo) -> None:
        _now({"type": "started", **addresses(demo), "curl": curl(demo)})

    def progress(self, look: Look) -> None:
        _now({"type": "progress", **msgspec.structs.asdict(look)})

    def finished(self, look: Look, reasons: dict[str, Any], faults: list[str] | None) -> None:
        _now({"type": "finished", **msgspec.structs.asdict(look), "dead": reasons, "faults": faults})


def _now(value: Any) -> None:
    """A line that whoever reads the pipe has at once."""
    line(value)
    sys.stdout.flush()
