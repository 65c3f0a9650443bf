"""Secrets by reference: "env:NAME", "file:PATH", "credential:NAME" become ``Secret``.

Only whole values are references; nothing is spliced into text. What goes wrong is said with names, never with values.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from router.secret import Secret

MAX_SECRET_BYTES = 65_536

REFERENCE = re.compile(r"(env|file|credential):(.+)", re.DOTALL)
_UNFIT = re.compile(r"^\s|\s\Z|[\x00-\x1f\x7f]")  # no partner gives such a key, and no header can carry a line end
_SHELL_VARIABLE = re.compile(r"\$(?:\{([A-Z_][A-Z0-9_]*)\}|([A-Z_][A-Z0-9_]*))", re.ASCII)


class Unresolved(NamedTuple):
    """Why a reference gives no secret. Names only, never values."""

    message: str
    help: str


class Exposed(NamedTuple):
    """Why a secret may be known to others than its owner."""

    message: str
    help: str


def resolve(text: str, environ: Mapping[str, str], directory: Path) -> Secret | Unresolved:
    """The secret that "env:NAME", "file:PATH" or "credential:NAME" names; the text itself is never taken for one."""
    if (found := REFERENCE.fullmatch(text)) is None:
        return _literal(text)
    kind, name = found.groups()
    value = {"env": _from_environment, "file": _from_file, "credential": _from_credentials}[kind](
        name, environ, directory
    )
    if isinstance(value, Unresolved):
        return value
    if not value:
        return Unresolved(f"{kind}:{name} is empty", "put the secret there")
    if _UNFIT.search(value):
        words = f"{kind}:{name} begins or ends with a blank, or has a line end or another control character in it"
        return Unresolved(words, "put the secret alone there; Windows line ends (CRLF) add such a character")
    return Secret(value, text)


def exposed(text: str, directory: Path) -> Exposed | None:
    """What is to be said of a ``file:`` that every user of the machine can read. Others may be meant to.

    Docker and Kubernetes mount secrets with mode 0444 and 0644, in a container whose only user is ours.
    Source: Docker, "Manage sensitive data with Docker secrets"; Kubernetes, "Secrets", defaultMode.
    """
    found = REFERENCE.fullmatch(text)
    if found is None or found[1] != "file" or os.name != "posix":
        return None
    try:
        open_to_all = (directory / found[2]).stat().st_mode & stat.S_IROTH
    except OSError:
        return None
    return Exposed(f"file {found[2]} can be read by every user", f"chmod 600 {found[2]}") if open_to_all else None


def _literal(text: str) -> Unresolved:
    if found := _SHELL_VARIABLE.fullmatch(text):
        return Unresolved("variables are not filled in here", f'did you mean "env:{found[1] or found[2]}"?')
    return Unresolved(
        "a secret does not stand in the file itself", 'write "env:NAME", "file:PATH" or "credential:NAME"'
    )


def _from_environment(name: str, environ: Mapping[str, str], _: Path) -> str | Unresolved:
    if name not in environ:
        return Unresolved(
            f"environment variable {name} is not set", f'export {name}=..., or use "file:" / "credential:"'
        )
    return environ[name]


def _from_file(name: str, _: Mapping[str, str], directory: Path) -> str | Unresolved:
    return _read(directory / name, name)


def _from_credentials(name: str, environ: Mapping[str, str], _: Path) -> str | Unresolved:
    """A systemd credential; its directory is closed to others by systemd. Source: systemd.exec(5), CREDENTIALS."""
    if not (home := environ.get("CREDENTIALS_DIRECTORY")):
        shell = "in a shell: sudo env CREDENTIALS_DIRECTORY=/run/credentials/turnout.service turnout ..."
        return Unresolved(
            "$CREDENTIALS_DIRECTORY is not set", f"add LoadCredential={name}:PATH to the systemd unit; {shell}"
        )
    if "/" in name or name in {".", ".."}:
        return Unresolved("a credential's name is not a path", 'write "credential:NAME", or use "file:"')
    return _read(Path(home) / name, name, private=False)


def _read(path: Path, name: str, *, private: bool = True) -> str | Unresolved:
    try:
        with path.open("rb") as file:
            if private and os.name == "posix" and os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return Unresolved(f"file {name} can be changed by other users", f"chmod 600 {name}")
            content = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as error:  # the latter: NUL in a path
        why = (getattr(error, "strerror", None) or "cannot be read").lower()
        return Unresolved(f"file {name}: {why}", "check its path and owner")
    if len(content) > MAX_SECRET_BYTES:
        return Unresolved(f"file {name} is too large for a secret", "name the file that holds the secret alone")
    try:
        return content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        return Unresolved(f"file {name} is not UTF-8 text", "name the file that holds the secret alone")
