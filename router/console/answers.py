"""How the console answers: JSON, and errors with a stable code that repeat nothing of the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from router.problem import Error

JSON = "application/json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fault(Exception):
    """Answer with this instead."""

    def __init__(self, status: int, code: str, message: str, errors: Sequence[dict[str, str]] = ()) -> None:
        super().__init__(code)
        self.status = status
        self.error = Error(code=code, message=message, errors=list(errors))

    def answer(self) -> web.Response:
        return answered(self.error, status=self.status)


def answered(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON)
