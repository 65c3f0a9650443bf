"""``turnout ledger``: what came in, what became of it, and the difference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli import DONE, FAILED
from router.cli.files import ask, left
from router.cli.options import config_option, json_option
from router.cli.output import line, table
from router.wording import when

if TYPE_CHECKING:
    from router.outbox.reads.reader import Reader
    from router.outbox.reads.views import Discrepancy, LaneSum, Ledger


@click.command("ledger")
@config_option
@click.option("--verify", is_flag=True, help="Count everything again, row by row: slow on a large outbox.")
@json_option
def command(path: Path, verify: bool, as_json: bool) -> None:
    """Say where every event is. Exits 1 where the sum does not come out."""

    async def told(reader: Reader) -> tuple[Ledger, list[Discrepancy]]:
        return await reader.ledger(), await reader.recount() if verify else []

    ledger, wrong = ask(path, told)
    if as_json:
        line(ledger)
        for each in wrong:
            line(each)
    else:
        _print(ledger)
        for each in wrong:
            click.echo(f"{each.where}: {each.what}: {each.counted} counted, {each.kept} in the books")
        if verify and not wrong:
            click.echo("verified: every row was counted again, and nothing differs")
    sys.exit(FAILED if ledger.difference or wrong else DONE)


def _print(ledger: Ledger) -> None:
    lanes = ledger.destinations
    metered = any(lane.quota for lane in lanes.values())
    table(
        ("DESTINATION", "DELIVERED", "WAITING", "FILTERED", "DEAD", "ERASED", *(["QUOTA"] if metered else []), "HELD"),
        [
            (
                *(name, lane.delivered, lane.waiting, lane.filtered, lane.dead, lane.erased),
                *([_quota(lane)] if metered else []),
                _held(lane),
            )
            for name, lane in lanes.items()
        ],
    )
    click.echo(
        f"received {ledger.received} = duplicate {ledger.duplicate} + rejected {ledger.rejected}"
        f" + accepted {ledger.accepted}; difference {ledger.difference}"
    )


def _quota(lane: LaneSum) -> str:
    from router.delivery.quota import NEAR

    if not lane.quota:
        return ""
    used, limit = lane.quota.used, lane.quota.limit
    state = ", used up" if used >= limit else ", nearly used up" if used >= NEAR * limit else ""
    return f"{used} of {limit} in {lane.quota.month}{state}"


def _held(lane: LaneSum) -> str:
    if not lane.held:
        return f"no, but failing: {lane.failing}" if lane.failing else ""
    return (
        f"{lane.hold_reason}{f', until {when(lane.hold_until)} ({left(lane.hold_until)})' if lane.hold_until else ''}"
    )
