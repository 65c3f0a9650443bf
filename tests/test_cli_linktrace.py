"""``turnout linktrace links``: a link is made and looked up at a fake LinkTrace, and every refusal says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.cli import turnout
from router.clock import SystemClock
from router.mocks.linktrace import LinkTrace
from router.mocks.partner import Trouble, running

KEY = "canary-key"
TABLE = '[destinations.{name}]\ntype = "linktrace"\napi_key = "env:LT_KEY"\nbase_url = "{url}"\nallow_private = true\n'


@pytest.fixture
def partner() -> LinkTrace:
    return LinkTrace(now=SystemClock().now, key=KEY, links=["497b3422"], plan="free")


@pytest.fixture
async def url(partner: LinkTrace) -> AsyncIterator[str]:
    async with running(partner) as address:
        yield address


async def run(*arguments: str, key: str = KEY) -> Result:
    """The command in a thread of its own, for the fake partner lives in this one."""
    return await asyncio.to_thread(
        CliRunner().invoke, turnout, ["linktrace", "links", *arguments], env={"LT_KEY": key, "TURNOUT_CONFIG": None}
    )


def config(tmp_path: Path, url: str, *names: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text("".join(TABLE.format(name=name, url=url) for name in names))
    return str(path)


class TestCreate:
    async def test_says_the_short_code(self, tmp_path, url, partner):
        """
        The link is made with what the options say, and its short code is said with the property to send it as.
        """
        arguments = ("--referrer", "user_9821", "--source", "home_tab", "--campaign", "summer", "--medium", "social")

        done = await run("create", "--config", config(tmp_path, url, "links"), *arguments, "--payload", "cta=invite")

        [code] = partner.made
        assert (0, "") == (done.exit_code, done.stderr)
        assert f"short code   {code}\nlink         https://app.linktrace.in/r/{code}\n" in done.stdout
        assert f'properties.link_short_code = "{code}"' in done.stdout
        assert {
            "referrerIdentifier": "user_9821",
            "source": "home_tab",
            "campaign": "summer",
            "medium": "social",
            "environment": "production",
            "customPayload": {"cta": "invite"},
        } == partner.received[-1].body

    async def test_as_json_for_trying(self, tmp_path, url, partner):
        """
        With --json it is LinkTrace's own data, one object on one line.
        """
        given = ("--referrer", "u", "--environment", "stage", "--json")

        done = await run("create", "--config", config(tmp_path, url, "links"), *given)

        assert (0, 1) == (done.exit_code, done.stdout.count("\n"))
        said = json.loads(done.stdout)
        assert (["stage"], [said["shortCode"]]) == ([said["environment"]], list(partner.made))

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--referrer", "jane@example.com"), "give an id of yours"),
            (("--referrer", "+33 6 39 98 00 01"), "give an id of yours"),
            (("--referrer", "u", "--payload", "who=jane@example.com"), "give an id of yours"),
            (("--referrer", "u", "--campaign", "for jane@example.com"), "give an id of yours"),
            (("--referrer", " "), "--referrer is empty"),
            ((), "--referrer"),
            (("--referrer", "u", "--payload", "cta"), "KEY=VALUE"),
            (("--referrer", "u", "--payload", "=x"), "KEY=VALUE"),
            (("--referrer", "u", "--payload", "a=1", "--payload", "a=2"), "3 different keys"),
            (("--referrer", "u", *(f"--payload={key}=1" for key in "abcd")), "3 different keys"),
            (("--referrer", "u", "--environment", "test"), "production"),
            (("--referrer", "u", "--to", "other"), "--to is one of links"),
        ],
        ids=["an address", "a phone", "an address in the payload", "an address in the campaign", "blank", "nobody",
             "no pair", "no key", "one key twice", "four pairs", "no environment", "no destination"],
    )  # fmt: skip
    async def test_refuses_here(self, tmp_path, url, partner, arguments, says):
        """
        What must not be sent, or would be refused, is a usage error with its remedy: nobody is asked, and nothing that
        may be personal is repeated.
        """
        done = await run("create", "--config", config(tmp_path, url, "links"), *arguments)

        assert 2 == done.exit_code
        assert says in done.stderr
        assert "jane" not in done.stderr
        assert [] == partner.received

    async def test_says_why_linktrace_refuses(self, tmp_path, url, partner):
        """
        A refusal ends with 1 and what to do; the key is not shown.
        """
        done = await run("create", "--config", config(tmp_path, url, "links"), "--referrer", "u", key="canary-wrong")

        assert (1, "") == (done.exit_code, done.stdout)
        assert "set api_key" in done.stderr
        assert "canary" not in done.stderr

    async def test_an_answer_without_a_code_is_none(self, tmp_path, url, partner):
        """
        A success without a short code is not reported as one.
        """
        partner.trouble = [Trouble(status=201, body={"success": True, "data": {"shortCode": "a b"}})]

        done = await run("create", "--config", config(tmp_path, url, "links"), "--referrer", "u")

        assert (1, "") == (done.exit_code, done.stdout)
        assert "HTTP 201" in done.stderr

    async def test_nobody_answers(self, tmp_path):
        """
        Without an answer the exit code is 3, and the link may be there nevertheless.
        """
        done = await run("create", "--config", config(tmp_path, "http://127.0.0.1:1", "links"), "--referrer", "u")

        assert 3 == done.exit_code
        assert "dashboard before trying again" in done.stderr


class TestShow:
    @pytest.mark.parametrize("code", ["497b3422", "https://app.linktrace.in/r/497b3422?utm_source=x"])
    async def test_says_what_linktrace_knows(self, tmp_path, url, code):
        """
        The short code or its whole link gives every fact under LinkTrace's name.
        """
        done = await run("show", "--config", config(tmp_path, url, "links"), code)

        assert (0, "") == (done.exit_code, done.stderr)
        assert "shortCode     497b3422\n" in done.stdout
        assert "environment   production\n" in done.stdout

    async def test_as_json(self, tmp_path, url):
        """
        With --json it is LinkTrace's own data, one object on one line.
        """
        done = await run("show", "--config", config(tmp_path, url, "links"), "497b3422", "--json")

        assert "497b3422" == json.loads(done.stdout)["shortCode"]

    async def test_what_it_says_cannot_take_over_a_terminal(self, tmp_path, url, partner):
        """
        Control characters in an answer are shown, not obeyed; what is no text is shown as JSON.
        """
        partner.trouble = [
            Trouble(status=200, body={"success": True, "data": {"campaign": "\x1b[2J", "payload": {"a": "b"}}})
        ]

        done = await run("show", "--config", config(tmp_path, url, "links"), "497b3422")

        assert "\x1b" not in done.stdout
        assert '{"a":"b"}' in done.stdout

    async def test_an_unknown_code(self, tmp_path, url):
        """
        A code that is not the account's ends with 1 and what to do.
        """
        done = await run("show", "--config", config(tmp_path, url, "links"), "none0000")

        assert 1 == done.exit_code
        assert "not in this account" in done.stderr

    async def test_no_code(self, tmp_path, url, partner):
        """
        What cannot be a short code is a usage error, and nobody is asked.
        """
        done = await run("show", "--config", config(tmp_path, url, "links"), "a-b")

        assert (2, []) == (done.exit_code, partner.received)

    async def test_nobody_answers(self, tmp_path):
        """
        Without an answer the exit code is 3.
        """
        done = await run("show", "--config", config(tmp_path, "http://127.0.0.1:1", "links"), "497b3422")

        assert 3 == done.exit_code
        assert "try again later" in done.stderr


class TestWhichDestination:
    async def test_one_of_several_must_be_named(self, tmp_path, url, partner):
        """
        Where there are several, --to says which, and without it they are listed.
        """
        path = config(tmp_path, url, "eu", "us")

        silent = await run("show", "--config", path, "497b3422")
        named = await run("show", "--config", path, "497b3422", "--to", "us")

        assert (2, 0) == (silent.exit_code, named.exit_code)
        assert "--to is one of eu, us" in silent.stderr

    async def test_none(self, tmp_path, url):
        """
        A configuration without LinkTrace is told what to add.
        """
        done = await run("show", "--config", config(tmp_path, url), "497b3422")

        assert 2 == done.exit_code
        assert "add one" in done.stderr
