"""A request as it may be shown to people: secrets masked, headers that may be credentials hidden, and as a curl command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from router.destination import Destination, Header, Request
from router.secret import Secret, spellings

MASK: Final = "***"
_WEAK: Final = 8  # characters of a secret; a shorter one is a part of many words
# Any other header may carry a credential: those of a webhook are the operator's own, under names of their choice.
_PLAIN_HEADERS: Final = frozenset({"accept", "content-type", "user-agent", "webhook-id", "webhook-timestamp"})


def masked(text: str, destination: Destination) -> str:
    """``text`` without the destination's secrets, however JSON and URLs spell them.

    A short one is taken out where it stands alone, not out of the middle of words, and not where it is a key of JSON.
    """
    spelt_so = {spelt for secret in destination.all_secrets() for spelt in spellings(secret.reveal())}
    for spelt in sorted(spelt_so, key=len, reverse=True):
        if len(spelt) >= _WEAK:
            text = text.replace(spelt, MASK)
        else:
            before, after = (r"(?<!\w)" if spelt[0].isalnum() else ""), (r"(?!\w)" if spelt[-1].isalnum() else "")
            text = re.sub(rf'{before}{re.escape(spelt)}{after}(?!":)', MASK, text)
    return text


def address(request: Request, destination: Destination) -> str:
    """The URL with its query. What the operator wrote into a query by hand may be a key, so its values are masked."""
    plain, given = _split(request.url)
    query = [f"{quote(name)}={MASK}" for name in given]
    query += [f"{quote(name)}={_fit_header(value, destination)}" for name, value in request.query.items()]
    return "?".join([masked(plain, destination), *(["&".join(query)] if query else [])])


def _split(url: str) -> tuple[str, list[str]]:
    """The URL without user, query and fragment; the names in its query."""
    parts = urlsplit(url)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", names


def _fit_header(value: Header, destination: Destination) -> str:
    return MASK if isinstance(value, Secret) else masked(quote(value, safe=""), destination)


def headers(request: Request, destination: Destination) -> dict[str, str]:
    """The headers that the destination sets; only what cannot be a credential has its value."""
    return {
        name: masked(value, destination) if isinstance(value, str) and name.lower() in _PLAIN_HEADERS else MASK
        for name, value in request.headers.items()
    }


def body_text(request: Request, destination: Destination) -> str:
    """The body, to the letter; a secret in it is masked."""
    return masked(request.body.decode("utf-8", "replace"), destination)


def curl(request: Request, destination: Destination) -> str:
    """The request as a command for bash and curl 7.87 or newer. Secrets are where their references say: "$SNAP_TOKEN"."""
    plain, given = _split(request.url)
    own = destination.all_secrets()
    parts = [f"curl -sS -X {request.method} {_single(masked(plain, destination))}"]
    parts += [f"--url-query {_single(f'{name}={MASK}')}" for name in given]
    parts += [f"--url-query {_pair(f'{name}=', value, own)}" for name, value in request.query.items()]
    parts += [
        f"-H {_pair(f'{name}: ', value if isinstance(value, Secret) else shown, own)}"
        for (name, value), shown in zip(request.headers.items(), headers(request, destination).values(), strict=True)
    ]
    if request.method != "GET":
        parts.append(f"--data-raw {_single(body_text(request, destination))}")
    command = " \\\n  ".join(parts)
    return f"# {MASK} stands for what is not shown\n{command}" if MASK in command else command


_ODD: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def _single(text: str) -> str:
    r"""``text`` as one word of bash. What could take over a terminal is written as \x..; the word is the same."""
    if not _ODD.search(text):
        return shlex.quote(text)
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _ODD.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), plain) + "'"


def _pair(name: str, value: Header, own: Sequence[Secret]) -> str:
    if not isinstance(value, Secret):
        return _single(name + value)
    before, variable = _placed(value.reveal(), own)
    return f'"{_in_double(name + before)}{variable}"'


def _placed(text: str, own: Sequence[Secret]) -> tuple[str, str]:
    """What stands before a secret of the settings in a text made from it ("Bearer "), and its variable."""
    for secret in own:
        before, variable = text.removesuffix(secret.reveal()), _variable(secret.reference)
        if before != text and variable is not None and not any(each.reveal() in before for each in own):
            return before, variable
    return "", MASK


def _variable(reference: str) -> str | None:
    kind, _, name = reference.partition(":")
    match kind:
        case "env" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            return f"${name}"
        case "file":
            return f"$(cat {shlex.quote(name)})"
        case "credential":
            return f'$(cat "$CREDENTIALS_DIRECTORY"/{shlex.quote(name)})'
    return None


def _in_double(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)
