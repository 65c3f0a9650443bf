"""What partners need readable, encrypted at rest and forgettable.

Every log segment has a key of its own, kept in ``state.db`` only. Destroying that key makes the clear values of the
segment, and of every copy of it, unreadable at once. AES-GCM with a random 96-bit nonce (NIST SP 800-38D: at most
2^32 messages a key; a segment holds some 10^5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from router.event import NOTHING, Clear

_NONCE = 12
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Clear).decode


def new_key() -> bytes:
    return AESGCM.generate_key(bit_length=256)


class Vault:
    """Seals and opens the clear values of one segment. Without its key it opens nothing and says so with Clear()."""

    def __init__(self, key: bytes | None) -> None:
        self._cipher = AESGCM(key) if key else None

    def seal(self, clears: Sequence[Clear]) -> Iterator[bytes | None]:
        """In order; None where there is nothing to keep. Randomness for many costs as much as for one."""
        random = os.urandom(_NONCE * len(clears))
        for place, clear in enumerate(clears):
            if clear == NOTHING or self._cipher is None:
                yield None
            else:
                nonce = random[_NONCE * place : _NONCE * (place + 1)]
                yield nonce + self._cipher.encrypt(nonce, _encode(clear), None)

    def open(self, sealed: bytes | None) -> Clear:
        if sealed is None or self._cipher is None:
            return NOTHING
        try:
            return _decode(self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None))
        except InvalidTag:
            return NOTHING
