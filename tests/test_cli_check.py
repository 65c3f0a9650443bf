"""The command line's frame, ``check`` and ``destinations``: what is printed, and with which exit code."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import destinations
from router.cli import COMMANDS, turnout
from router.cli.output import table
from router.config import Finding
from router.terminal import escaped
from router.wording import counted

ROOT = Path(__file__).parent.parent

GOOD = """\
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
[destinations.backend]
type = "webhook"
url = "https://backend.example/"
secrets = ["env:HOOK_SECRET"]
"""
BAD = """\
[sources.shop]
tokens = ["env:SHOP_TOKEN"]

[destinations.eu]
type = "webhook"
ulr = "https://backend.example/%2C"
secrets = ["env:NOT_SET"]
"""
ENVIRON = {"SHOP_TOKEN": "canary", "HOOK_SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "TURNOUT_CONFIG": None}


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(turnout, arguments, env={**ENVIRON, **environ})


@pytest.fixture
def good(tmp_path) -> str:
    (tmp_path / "good.toml").write_text(GOOD)
    return str(tmp_path / "good.toml")


@pytest.fixture
def bad(tmp_path) -> str:
    (tmp_path / "bad.toml").write_text(BAD)
    return str(tmp_path / "bad.toml")


class TestFrame:
    def test_alone(self):
        """
        The command alone shows six examples and where to find more.
        """

        found = run()
        assert (0, 6) == (found.exit_code, found.stdout.partition("\n\n")[0].count("\n") + 1)

    def test_help(self):
        """
        Help names every command with what it does, without importing one.
        """

        found = run("--help")
        assert 0 == found.exit_code
        assert list(COMMANDS) == [line.split()[0] for line in found.stdout.partition("Commands:\n")[2].splitlines()]

    @pytest.mark.parametrize("name", [(), ("outbox",)], ids=["turnout", "turnout outbox"])
    def test_no_word_is_cut_off(self, name):
        """
        What a command does is said whole in the list of commands.
        """

        assert "..." not in run(*name, "--help").stdout.partition("Commands:\n")[2]

    def test_help_imports_little(self):
        """
        Help waits for none of the libraries of the server.
        """

        script = "import sys; from router.cli import turnout; turnout(['--help'], standalone_mode=False); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        heavy = {"aiohttp", "msgspec", "rich", "structlog", "sqlite3", "asyncio", "jinja2", "cryptography"}
        assert set() == heavy & set(done.stdout.splitlines()[-1].split())

    def test_slip(self):
        """
        A misspelt command is a usage error that names the nearest.
        """

        found = run("chekc")
        assert 2 == found.exit_code
        assert 'did you mean "check"?' in found.stderr

    @pytest.mark.parametrize("name", COMMANDS)
    def test_commands(self, name):
        """
        Every command of the list is there.
        """

        assert isinstance(importlib.import_module(f"router.cli.{name}").command, click.Command)

    @pytest.mark.parametrize(
        "arguments", [("explain", "caf\udce9"), ("outbox", "retry", "--to", "ads", "caf\udce9"), ("send", "caf\udce9")]
    )
    def test_what_is_no_text(self, arguments):
        """
        An id typed in another encoding is said to be that, by every command, and nobody is said to be unreachable.
        """
        said = run(*arguments)

        assert 2 == said.exit_code
        assert "not text in this terminal's encoding" in said.stderr

    def test_without_libraries(self):
        """
        Where the libraries are missing, the lines that install them are printed, and no traceback.
        """

        done = subprocess.run(
            [sys.executable, "-S", "-m", "router", "demo"], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert 3 == done.returncode
        assert '"click" is not installed' in done.stderr
        assert ".venv/bin/pip install -q -e ." in done.stderr
        assert "Traceback" not in done.stderr


class TestCheck:
    def test_good(self, good):
        """
        A file without problems is said to be so, with what it holds.
        """

        found = run("check", "--config", good)
        assert (0, f"No problems.\n{good}: 1 source, 1 destination.\n") == (found.exit_code, found.stdout)

    def test_bad(self, bad):
        """
        Every problem shows its place, its line with a caret, and help; values that may be secrets do not show.
        """

        expected = f"""\
{bad}:6:1: error: unknown key "ulr" in [destinations.eu] (type = "webhook")
    6 | ulr = "***"
      | ^^^
      help: did you mean "url"?
{bad}:7:12: error: destinations.eu.secrets[0]: environment variable NOT_SET is not set
    7 | secrets = ["env:NOT_SET"]
      |            ^^^^^^^^^^^^^
      help: export NOT_SET=..., or use "file:" / "credential:"
2 errors.
"""
        found = run("check", "--config", bad)
        assert (1, expected) == (found.exit_code, found.stdout)

    def test_json(self, bad):
        """
        One object a line, always with the same keys.
        """

        found = run("check", "--json", "--config", bad)
        lines = [json.loads(line) for line in found.stdout.splitlines()]
        assert 1 == found.exit_code
        assert ["file", "line", "column", "severity", "key", "message", "help"] == list(lines[0])
        assert [(6, "destinations.eu.ulr"), (7, "destinations.eu.secrets[0]")] == [(o["line"], o["key"]) for o in lines]
        assert run("check", "--format", "json", "--config", bad).stdout == found.stdout

    def test_github(self, bad):
        """
        GitHub shows each problem beside its line.
        """

        first = run("check", "--format", "github", "--config", bad).stdout.splitlines()[0]
        place = f"::error file={bad},line=6,col=1::"
        assert f'{place}unknown key "ulr" in [destinations.eu] (type = "webhook") (did you mean "url"?)' == first

    def test_github_escapes(self):
        """
        A file or message cannot end the workflow command or begin another.
        """

        from router.cli.check import github

        finding = Finding(file="a:b,c", line=1, column=2, severity="warning", key="", message="100%\n::error::x")
        assert "::warning file=a%3Ab%2Cc,line=1,col=2::100%25%0A::error::x" == github(finding)

    def test_no_file(self, tmp_path):
        """
        A file that is not there is a matter of usage.
        """

        found = run("check", "--config", str(tmp_path / "none.toml"))
        assert 2 == found.exit_code
        assert "no such file" in found.stdout

    def test_where_it_is(self, good):
        """
        The file is found by --config on either side of the command, and by the environment.
        """

        assert good in run("--config", good, "check").stdout
        assert good in run("check", TURNOUT_CONFIG=good).stdout

    def test_controls(self, tmp_path):
        """
        What stands in the file cannot write to the terminal.
        """

        path = tmp_path / "config.toml"
        path.write_text('[collect]\n"\\u001b[2J\\u202e" = "\u202e"\n')
        found = run("check", "--config", str(path)).stdout
        assert "\\x1b[2J\\u202e" in found
        assert found.isascii()


class TestDestinations:
    def test_types(self):
        """
        Every type is listed, in columns of plain text.
        """

        found = run("destinations")
        assert 0 == found.exit_code
        assert sorted(destinations.registry()) == [line.split()[0] for line in found.stdout.splitlines()[1:]]

    @pytest.mark.parametrize("kind", destinations.registry())
    def test_type(self, kind):
        """
        Every setting of a type is described, its own first, those it demands and its secrets marked.
        """

        (one,) = map(json.loads, run("destinations", kind, "--json").stdout.splitlines())
        listed = run("destinations", kind).stdout
        struct = destinations.registry()[kind]

        assert sorted(struct.__struct_encode_fields__) == sorted(setting["name"] for setting in one["settings"])
        assert all(f"\n{setting['name']} " in listed for setting in one["settings"])
        assert all(setting["description"] for setting in one["settings"])
        assert struct.dedup_key == one["dedup_key"]

    @pytest.mark.parametrize("kind", destinations.registry())
    def test_limits_are_for_people(self, kind):
        """
        What a value looks like is shown where it is simple, without the signs that only a program needs.
        """

        (one,) = map(json.loads, run("destinations", kind, "--json").stdout.splitlines())
        limits = {setting["name"]: setting["limits"] for setting in one["settings"]}

        assert [] == [limit for limit in limits.values() if set("\\^$(") & set(limit)]
        assert "snap" != kind or "looks like [0-9A-Za-z-]{1,64}" == limits["pixel_id"]

    def test_settings(self):
        """
        A setting shows its form, default, limits and whether it is a secret, as the struct has them.
        """

        (one,) = map(json.loads, run("destinations", "webhook", "--json").stdout.splitlines())
        settings = {setting["name"]: setting for setting in one["settings"]}
        assert {"required": True, "secret": True, "form": "list of secret reference"}.items() <= settings[
            "secrets"
        ].items()
        assert {"required": False, "common": True, "default": "72h"}.items() <= settings["retry_for"].items()
        assert {"default": 8, "limits": ">= 1, <= 256"}.items() <= settings["concurrency"].items()

    def test_slip(self):
        """
        A type that is none is a usage error that names the nearest.
        """

        found = run("destinations", "wehbook")
        assert 2 == found.exit_code
        assert 'did you mean "webhook"?' in found.stderr


def _on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is one of 80 columns, without colours."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


class TestOutput:
    @pytest.mark.parametrize(
        ("count", "words", "expected"),
        [
            (0, ("event",), "0 events"),
            (1, ("event",), "1 event"),
            (2, ("event",), "2 events"),
            (1, ("delivery", "deliveries"), "1 delivery"),
            (3, ("delivery", "deliveries"), "3 deliveries"),
        ],
    )
    def test_counted(self, count, words, expected):
        """
        One is singular, everything else plural.
        """

        assert expected == counted(count, *words)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Zürich 東京", "Zürich 東京"),
            ("a\nb\t\x1b[31m\x7f\x9b", "a\\x0ab\\x09\\x1b[31m\\x7f\\x9b"),
            ("\u202egnp.exe\u2066\ufeff\u200b", "\\u202egnp.exe\\u2066\\ufeff\\u200b"),
            ("\ud800", "\\ud800"),
        ],
        ids=["letters", "controls", "directions and blanks of no width", "half a character"],
    )
    def test_escaped(self, text, expected):
        """
        Text shows as one line of visible characters, whatever was sent.
        """

        assert expected == escaped(text)

    def test_table_in_a_pipe(self, capsys):
        """
        In a pipe a table is columns, without colour, lines or blanks at the end.
        """

        table(("NAME", "N"), [("a", 1), ("long\x1b", None)])
        assert "NAME      N\na         1\nlong\\x1b\n" == capsys.readouterr().out

    def test_table_on_a_terminal(self, capsys, monkeypatch):
        """
        Where colour is forced the table is drawn, and what was sent is not markup.
        """

        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("FORCE_COLOR", "1")
        table(("NAME",), [("[red]x[/red]",)])
        assert "[red]x[/red]" in capsys.readouterr().out

    def test_a_terminal_without_colours(self, capsys, monkeypatch):
        """
        NO_COLOR is about colour: the table is drawn all the same, without any escape.
        """

        _on_a_terminal(monkeypatch)
        table(("NAME", "N"), [("a", 1)])
        drawn = capsys.readouterr().out
        assert "─" in drawn
        assert "\x1b" not in drawn

    def test_prose_gives_way(self, capsys, monkeypatch):
        """
        What does not fit into a line is folded in the last column; the others keep every word whole.
        """

        _on_a_terminal(monkeypatch)
        event, reason = "order-1046-and-more", "web events need an absolute http or https address: " + "x" * 40
        table(("EVENT", "SINCE", "STATE", "REASON"), [(event, "2026-11-21 02:02:29Z", "filtered", reason)])
        drawn = capsys.readouterr().out
        assert 80 >= max(map(len, drawn.splitlines()))
        assert f"{event}  2026-11-21 02:02:29Z  filtered  web events need an" in drawn
        assert reason.replace(" ", "") == "".join(line[51:] for line in drawn.splitlines()[2:]).replace(" ", "")

    def test_what_fits_no_line_is_a_block(self, capsys, monkeypatch):
        """
        Where the terminal is too narrow, a row is lines of heading and value, whole, the empty ones left out.
        """

        _on_a_terminal(monkeypatch)
        long = "e" * 70
        table(("EVENT", "SINCE", "NEXT TRY", "STATE"), [(long, "now", "", "filtered"), ("b", "", "", "dead")])
        expected = f"EVENT     {long}\nSINCE     now\nSTATE     filtered\n\nEVENT     b\nSTATE     dead\n"
        assert expected == capsys.readouterr().out
