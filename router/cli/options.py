"""Options that several commands take, and the settings they stand for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli import FAILED, USAGE

if TYPE_CHECKING:
    from router.config import Examined
    from router.settings import Settings


def _path(ctx: click.Context, _: click.Parameter, given: str | None) -> Path:
    """``--config`` before or after the command's name, else the environment's, else ./config.toml."""
    from router import config

    explicit = given or ctx.find_root().obj
    return config.find(explicit if isinstance(explicit, str) else None, os.environ)


config_option = click.option(
    "--config",
    "path",
    metavar="PATH",
    callback=_path,
    help="The configuration; else $TURNOUT_CONFIG, else ./config.toml.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


def settings_of(path: Path) -> Examined:
    """The file, read with every destination type, those of other packages too."""
    import destinations
    from router import config

    types, unusable = destinations.known()
    return config.examine(path, os.environ, destinations=types, unusable=unusable)


def configured(path: Path) -> Settings:
    """The settings of a file without errors; else its findings go to stderr, and the process ends."""
    from router.cli.check import text

    settings, findings = settings_of(path)
    if settings is not None:
        return settings
    click.echo(text(findings), err=True)
    sys.exit(exit_code(path))


def exit_code(path: Path) -> int:
    """With a file that cannot be started with: 2 where there is none, 1 where it has errors."""
    return FAILED if path.exists() else USAGE
