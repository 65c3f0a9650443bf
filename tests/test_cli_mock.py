"""``turnout mock``: a fake partner as a process."""

from __future__ import annotations

import json
import re
import signal
import socket

import aiohttp
import pytest
from click.testing import CliRunner

from router.cli import turnout as command_line
from router.cli.mock import RULES
from router.mocks import PARTNERS, SOURCES
from router.mocks.partner import EXAMPLE, Trouble
from tests.running import turnout

CLICK = {
    "source_id": "s",
    "source_click_id": "c-1",
    "user_ip": "192.0.2.7",
    "job_id": "j",
    "click_id": "c-1",
    "user_agent": "UA",
    "job_country": "FR",
    "user_country": "FR",
    "click_time": "2026-11-20T12:00:00Z",
    "expired": False,
    "is_bot": False,
    "is_final": True,
    "expired_at": "",
    "destination_id": "d",
}
HEADERS = {"Authorization": "Bearer k"}


def test_every_partner_is_there():
    """
    The command knows exactly the fake partners that there are.
    """
    assert {*PARTNERS, *SOURCES} == set(RULES)


@pytest.mark.parametrize("kind", [*PARTNERS, *SOURCES])
async def test_tells_how_to_use_it(kind: str):
    """
    One object says where it listens, what it enforces and what to write; Ctrl-C ends it with 0.
    """
    async with turnout("mock", kind, "--json") as mock:
        said = await mock.object()
        mock.signal(signal.SIGINT)
        code, _, err = await mock.ended(10)

    assert (kind, 0, "") == (said["type"], code, err)
    assert said["url"] in said["setting"]
    assert {"type", "url", "enforces", "setting", "received", "counts", "trouble", "controls"} == said.keys()


async def test_keeps_the_rules_and_the_record():
    """
    A good click is taken, a bad one refused, and both are listed; the example of trouble is a trouble.
    """
    async with turnout("mock", "ipsnare", "--json") as mock, aiohttp.ClientSession(headers=HEADERS) as session:
        said = await mock.object()
        track = said["url"] + "/v1/track"
        statuses = []
        for click in (CLICK, CLICK | {"job_country": "France"}):
            async with session.post(track, json=click) as answer:
                statuses.append(answer.status)
        async with session.post(said["trouble"], json=EXAMPLE) as answer:
            assert 200 == answer.status
        async with session.post(track, json=CLICK) as answer:
            statuses.append((answer.status, answer.headers["Retry-After"]))
        async with session.get(said["received"]) as answer:
            received = await answer.json()

    assert [200, 422, (503, "2")] == statuses
    assert [True, False, False] == [each["accepted"] for each in received]


async def test_misbehaves_from_the_start():
    """
    Trouble given as options hits so many calls, and then no more.
    """
    options = ("--status", "500", "--retry-after", "1", "--times", "1")
    async with (
        turnout("mock", "ipsnare", "--json", *options) as mock,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        track = (await mock.object())["url"] + "/v1/track"
        statuses = []
        for _ in range(2):
            async with session.post(track, json=CLICK) as answer:
                statuses.append((answer.status, answer.headers.get("Retry-After")))

    assert [(500, "1"), (200, None)] == statuses


async def test_says_it_in_words():
    """
    Without --json it is a few lines for a person.
    """
    async with turnout("mock", "snap", "--seed", "4") as mock:
        lines = [await mock.line() for _ in range(9)]
        mock.signal(signal.SIGTERM)
        code, _, _ = await mock.ended(10)

    assert 0 == code
    assert "A fake snap listens on http://127.0.0.1:" in lines[0]
    assert "/received" in lines[3]
    assert "/counts" in lines[3]
    assert json.dumps(EXAMPLE, separators=(",", ":")) in lines[4]
    assert all(name in lines[5] for name in Trouble.__struct_fields__)
    assert "/reset" in lines[6]


async def test_says_what_can_be_put_into_it():
    """
    A partner that is fetched from says with which bodies it is given more; each of them is taken as it stands.
    """
    async with turnout("mock", "snitcher") as mock, aiohttp.ClientSession() as session:
        lines = [await mock.line() for _ in range(11)]
        bodies = [re.search(r"curl (\S+) -d '(.*)'", each) for each in lines if each.startswith("Put in")]
        statuses = []
        for found in bodies:
            async with session.post(found[1], data=found[2]) as answer:
                statuses.append((found[1].rpartition("/")[2], answer.status))

    assert [("sessions", 201), ("organisations", 201)] == statuses


def test_help_tells_the_controls():
    """
    The help names every path by which a running mock is driven, and every field of a trouble.
    """
    told = CliRunner().invoke(command_line, ["mock", "--help"]).stdout

    for path in ("GET /received", "GET /counts", "GET /trouble", "POST /trouble", "DELETE /trouble", "POST /reset"):
        assert path in told
    assert {"POST /sessions", "POST /organisations"} <= set(re.findall(r"POST /\w+", told))
    assert all(re.search(rf"^  {name} ", told, re.MULTILINE) for name in Trouble.__struct_fields__)


@pytest.mark.parametrize(
    ("options", "statuses"),
    [
        (["--links", "497b3422, abcd1234"], [202, 202, 404]),
        (["--quota", "1"], [202, 429, 429]),
        (["--plan", "free"], [403, 403, 403]),
    ],
    ids=["links", "quota", "plan"],
)
async def test_an_account_of_linktrace(options: list[str], statuses: list[int]):
    """
    The account that the options describe: the links that it knows, the events a month it may have, its plan.
    """
    async with (
        turnout("mock", "linktrace", "--json", *options) as mock,
        aiohttp.ClientSession(headers={"x-api-key": "k"}) as session,
    ):
        url = (await mock.object())["url"] + "/api/v1/events"
        found = []
        for code in ("497b3422", "abcd1234", "99999999"):
            event = {"linkShortCode": code, "eventName": "purchase", "entityId": "o-1"}
            async with session.post(url, json=event) as answer:
                found.append(answer.status)

    assert statuses == found


async def test_an_address_that_can_be_copied():
    """
    At an IPv6 address it tells a URL, with brackets.
    """
    async with turnout("mock", "snap", "--host", "::1", "--json") as mock:
        url = (await mock.object())["counts"]
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert 200 == answer.status


async def test_a_port_in_use():
    """
    It says so and ends with 1.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        async with turnout("mock", "snap", "--port", port) as mock:
            code, _, err = await mock.ended(30)

    assert 1 == code
    assert f"Port {port} of 127.0.0.1 is in use" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["snap", "--secret", "whsec_x"],
        ["snap", "--quota", "3"],
        ["snap", "--share", "2"],
        ["snap", "--status", "99"],
        ["snap", "--retry-after", "5"],
        ["snap", "--share", "0.5", "--times", "3"],
        ["webhook", "--secret", "whsec_no base64"],
        [],
    ],
    ids=[
        "an unknown partner",
        "a secret for one that signs nothing",
        "a quota of one that has none",
        "a share over 1",
        "no status",
        "a header of no answer",
        "a share of no trouble",
        "a secret that verifies nothing",
        "no type",
    ],
)
def test_usage(arguments: list[str]):
    """
    What cannot be meant is exit code 2.
    """
    assert 2 == CliRunner().invoke(command_line, ["mock", *arguments]).exit_code


async def test_a_secret_without_its_padding_is_taken():
    """
    It takes every secret that the destination signs with.
    """
    async with turnout("mock", "webhook", "--secret", "whsec_" + 43 * "A", "--json") as mock:
        assert "url" in await mock.object()
