"""Files as whoever has them can read them: their bytes, and what the packed payloads anywhere among these say.

A search for personal data that looked at the bytes alone would miss what is packed, in rows as well as in free pages and in
a WAL.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from zstandard import ZstdDecompressor, ZstdError

from router.outbox.compression import _PACKED, _dictionary

_BEGIN = _PACKED + b"\x28\xb5\x2f\xfd"  # a zstd frame's magic number (RFC 8878, 3.1.1)


def unpacked(path: Path) -> bytes:
    """The file's bytes, followed by every payload that can be unpacked from some place among them."""
    whole = path.read_bytes()
    found, at = [whole], whole.find(_BEGIN)
    while at >= 0:
        with contextlib.suppress(ZstdError):  # the rest of one that was overwritten
            found.append(
                ZstdDecompressor(dict_data=_dictionary).decompressobj().decompress(whole[at + 1 : at + 65_536])
            )
        at = whole.find(_BEGIN, at + 1)
    return b"\n".join(found)
