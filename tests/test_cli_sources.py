"""``turnout sources``: what is said of sources, from the files alone."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli import turnout as command_line
from router.clock import SystemClock
from router.mocks.partner import Trouble, running
from router.mocks.snitcher import Snitcher as Fake
from router.outbox.outbox import Outbox
from router.settings import Snitcher, Source
from tests.fetching import account, fetching

KEYS = {
    "name", "type", "enabled", "webhook", "polled", "requests_last_minute", "next_poll", "paused", "last_error",
    "workspaces",
}  # fmt: skip


def configured(tmp_path: Path, url: str, more: str = "") -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        '[collect]\nlisten = "127.0.0.1:0"\n[console]\nlisten = "127.0.0.1:0"\n'
        f'[outbox]\npath = "{tmp_path / "outbox"}"\n'
        '[sources.shop]\ntokens = ["env:SHOP_TOKEN"]\nenabled = false\n'
        f'[sources.leads]\ntype = "snitcher"\ntoken = "env:PAT"\nbase_url = "{url}/v1"\nallow_private = true\n{more}'
    )
    return path


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(command_line, ["sources", *arguments])


async def read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Both forms of the list, beside a loop that runs."""
    return await asyncio.to_thread(lambda: (listed(path), invoked("list", "--config", str(path)).output))


def listed(path: Path) -> list[dict[str, Any]]:
    found = invoked("list", "--json", "--config", str(path))
    assert 0 == found.exit_code, found.output
    return [json.loads(each) for each in found.output.splitlines()]


async def fetched(path: Path, url: str, **chosen: Any) -> None:
    """One round of the source as configured, and the end of the process that made it."""
    clock = SystemClock()
    store = await Outbox.open(path.parent / "outbox", clock)
    async with fetching(store, clock, account(url, **chosen)) as puller:
        await puller.round()
    await store.close()


class TestList:
    async def test_after_a_round(self, tmp_path):
        """
        With the server down: how far each source is, its workspaces, its requests; nothing of that for a sender.
        """
        fake = Fake(now=SystemClock().now)
        async with running(fake) as url:
            path = configured(tmp_path, url, 'webhook_secret = "env:PAT"\n')
            await fetched(path, url)
        (shop, leads), _ = await read(path)

        assert KEYS == shop.keys() == leads.keys()
        assert ("shop", "sender", False, None, []) == tuple(
            shop[key] for key in ("name", "type", "enabled", "polled", "workspaces")
        )
        assert ("leads", "snitcher", True, "/webhooks/leads", None, None) == tuple(
            leads[key] for key in ("name", "type", "enabled", "webhook", "paused", "last_error")
        )
        assert leads["requests_last_minute"] >= 2
        assert [("ws_abc123", "My Website", None)] == [
            (each["uuid"], each["name"], each["paused"]) for each in leads["workspaces"]
        ]

    async def test_paused(self, tmp_path):
        """
        A source or a workspace that waits for somebody says why, in the table too.
        """
        fake = Fake(now=SystemClock().now)
        fake.trouble = [Trouble(status=401)]
        async with running(fake) as url:
            path = configured(tmp_path, url)
            await fetched(path, url)
        (_, leads), shown = await read(path)

        assert (
            "HTTP 401: the token is refused: renew it, then reload" == leads["paused"] == leads["last_error"]["reason"]
        )
        assert leads["next_poll"] is None
        assert "paused: HTTP 401" in shown
        assert "leads: last error " in shown
        assert "switched off" in shown

    async def test_a_workspace_that_is_paused(self, tmp_path):
        """
        It is named with its reason, and the source is as far as the others are.
        """
        fake = Fake(now=SystemClock().now)
        async with running(fake) as url:
            path = configured(tmp_path, url, 'workspaces = ["gone", "ws_abc123"]\n')
            await fetched(path, url, workspaces=("gone", "ws_abc123"))
        _, shown = await read(path)

        assert "1 of 2 workspaces paused" in shown
        assert "leads: workspace gone is paused: HTTP 404" in shown
        assert re.search(r"workspace gone is paused: .*; next look \d{4}-\d\d-\d\d \d\d:\d\d", shown)

    def test_before_the_server_has_run(self, tmp_path):
        """
        Sources are listed by the configuration, though no secret is set and no outbox is there.
        """
        shop, leads = listed(configured(tmp_path, "https://api.example"))

        assert (None, 0, None) == (leads["polled"], leads["requests_last_minute"], leads["next_poll"])
        assert "shop" == shop["name"]

    def test_no_sources(self, tmp_path):
        """
        An empty list is no fault; a file that is not TOML is.
        """
        path = tmp_path / "config.toml"
        path.write_text("")
        assert [] == listed(path)
        path.write_text("[")

        assert 2 == invoked("list", "--config", str(path)).exit_code


class TestSettings:
    @pytest.mark.parametrize(("kind", "struct"), [("snitcher", Snitcher), ("sender", Source)])
    def test_every_setting(self, kind, struct):
        """
        The reference is made from the struct that reads the settings: every key with a description.
        """
        found = invoked("settings", kind, "--json")
        settings = [json.loads(each) for each in found.output.splitlines()]

        assert list(struct.__struct_fields__) == [each["name"] for each in settings]
        assert all(each["description"] for each in settings)
        assert "SETTING" in invoked("settings", kind).output

    def test_an_unknown_type(self):
        """
        It is exit code 2, with what there is.
        """
        found = invoked("settings", "snitchr")

        assert 2 == found.exit_code
        assert 'did you mean "snitcher"?' in found.output
