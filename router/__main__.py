"""``turnout`` and ``python -m router``. Imports nothing but the standard library before it knows that the rest is there."""

import io
import sys
import time

BEGAN = time.monotonic()  # before anything is imported; the demo counts from here

INSTALL = """\
Turnout cannot start: {reason}. From the directory of the project:

    uv run turnout demo

or without uv:

    python3 -m venv .venv
    .venv/bin/pip install -q -e .
    .venv/bin/turnout demo
"""


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this file without installing it may have any
        _leave("it needs Python 3.11 or later, and this is %d.%d" % sys.version_info[:2])  # noqa: UP031 - so that old ones get here
    if isinstance(sys.stdout, io.TextIOWrapper):  # senders write more than a terminal's encoding may have
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from router.cli import turnout

        turnout(prog_name="turnout", obj=BEGAN)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] in {"router", "destinations"}:
            raise
        _leave(f'the library "{missing.name}" is not installed')


def _leave(reason: str) -> None:
    sys.stderr.write(INSTALL.format(reason=reason))
    sys.exit(3)


if __name__ == "__main__":
    main()
