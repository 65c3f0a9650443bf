"""Packages of other people that bring a destination: whatever is wrong with one is said, and stops nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import destinations
from router.cli import turnout
from router.destination import Destination, unfit

CLASS = """\
from typing import ClassVar
from router.destination import Destination

class Acme(Destination, tag="acme", frozen=True, kw_only=True):
    title = "Acme"
    home = "https://api.acme.example"
    docs = "https://acme.example/docs"
    dedup_key = "id"
"""
USED = '[sources.shop]\ntokens = ["env:SHOP_TOKEN"]\n[destinations.acme]\ntype = "acme"\n'
UNUSED = """\
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
[destinations.backend]
type = "webhook"
url = "https://backend.example/"
secrets = ["env:HOOK_SECRET"]
"""
ENVIRON = {"SHOP_TOKEN": "canary", "HOOK_SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "TURNOUT_CONFIG": None}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package whose only module, ``acme``, has this code."""
    site = tmp_path / "site"

    def install(code: str, point: str = "acme:Acme") -> None:
        information = site / "turnout_acme-1.0.dist-info"
        information.mkdir(parents=True)
        (site / "acme.py").write_text(code)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: turnout-acme\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[turnout.destinations]\nacme = {point}\n")
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()

    yield install
    sys.modules.pop("acme", None)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def run(config: str, *arguments: str) -> Result:
        (tmp_path / "config.toml").write_text(config)
        return CliRunner().invoke(turnout, ["--config", str(tmp_path / "config.toml"), *arguments], env=ENVIRON)

    return run


def test_shipped():
    """
    What is asked of other people's classes holds for those that are shipped.
    """
    assert [None] * len(destinations.SHIPPED) == [unfit(kind) for kind in destinations.SHIPPED]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("import acme_of_nobody", "cannot be loaded (ModuleNotFoundError)", id="needs a library"),
        pytest.param("other = 1", "cannot be loaded (AttributeError)", id="has no such class"),
        pytest.param("raise SystemExit(3)", "cannot be loaded (SystemExit)", id="exits"),
        pytest.param("Acme = 3", "cannot be used: Acme is no class of", id="no class"),
        pytest.param(CLASS.replace('title = "Acme"', "pass"), "cannot be used: Acme.title is missing", id="no title"),
        pytest.param(CLASS + '    window = "28 days"\n', 'Acme.window: expected text as "28d"', id="a window in words"),
        pytest.param(CLASS + '    default_timeout = "0s"\n', "cannot be used: Acme.default_timeout:", id="no time"),
        pytest.param(CLASS + "    default_batch = 0\n", "cannot be used: Acme.default_batch:", id="empty batches"),
        pytest.param(CLASS + '    max_batch = "50"\n', "cannot be used: Acme.max_batch:", id="a number as text"),
        pytest.param(CLASS + '    default_rate = "10 a second"\n', "Acme.default_rate:", id="a rate in words"),
        pytest.param(CLASS + '    clear = ["ip"]\n', "cannot be used: Acme.clear:", id="a list that must be a set"),
        pytest.param(CLASS + '    clear = frozenset({"email"})\n', "Acme.clear:", id="what is never kept"),
        pytest.param(CLASS + '    paths = ("code_from",)\n', "code_from is none of its settings", id="no setting"),
    ],
)
class TestUnusable:
    def test_where_it_is_used(
        self, installed: Callable[[str], None], run: Callable[..., Result], code: str, words: str
    ):
        """
        Check and serve say which package it is and what to do, at the destination that needs it.
        """
        installed(code)

        for command in ("check", "serve"):
            found = run(USED, command)

            assert 1 == found.exit_code
            assert "config.toml:4:8: error: the package turnout-acme" in found.output
            assert words in found.output
            assert "uninstall" in found.output

    def test_where_it_is_not(self, installed: Callable[[str], None], run: Callable[..., Result], code: str, words: str):
        """
        It is a warning, and the other destinations are there.
        """
        installed(code)

        found = run(UNUSED, "check")
        assert 0 == found.exit_code
        assert "warning: the package turnout-acme" in found.output
        assert words in found.output
        assert 0 == run(UNUSED, "preview", "--sample", "purchase").exit_code
        listed = run(UNUSED, "destinations")
        assert 0 == listed.exit_code
        assert words in listed.stderr
        assert sorted(kind.__struct_config__.tag for kind in destinations.SHIPPED) == [
            line.split()[0] for line in listed.stdout.splitlines()[1:]
        ]

    def test_nothing_else_stops(
        self, installed: Callable[[str], None], run: Callable[..., Result], code: str, words: str
    ):
        """
        What is asked of the outbox is answered; here there is none yet.
        """
        installed(code)

        for command in (["ledger"], ["explain", "e-1"], ["outbox", "list"]):
            assert "there is no outbox" in run(USED, *command).stderr


@pytest.mark.parametrize("check", ["__post_init__", "complaints"])
@pytest.mark.parametrize("error", ["ZeroDivisionError", "SystemExit"])
def test_a_check_that_fails(installed: Callable[[str], None], run: Callable[..., Result], check: str, error: str):
    """
    A fault in the code that checks the settings is a finding about them.
    """
    installed(f"{CLASS}    def {check}(self):\n        raise {error}\n")

    found = run(USED, "check")

    assert 1 == found.exit_code
    assert f"error: the check of this type fails ({error})" in found.output


@pytest.mark.parametrize("point", ["acme", "acme:Acme!", "no module: at all"])
def test_an_entry_point_that_is_none(installed: Callable[..., None], run: Callable[..., Result], point: str):
    """
    The same of what is no name of a class.
    """
    installed(CLASS, point)

    assert "error: the package turnout-acme cannot be" in run(USED, "check").output


def test_one_that_is_well(installed: Callable[[str], None], run: Callable[..., Result]):
    """
    It is a type like any other.
    """
    installed(CLASS)

    assert issubclass(destinations.registry()["acme"], Destination)
    assert 0 == run(USED, "check").exit_code
