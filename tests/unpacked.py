"""Files as whoever has them can read them: their bytes, and what the packed payloads anywhere among these say.

A search for personal data that looked at the bytes alone would miss what is packed, in rows as well as in free pages and in
a WAL.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from zstandard import ZstdDecompressor, ZstdError

from router.outbox.log.compression import _PACKED, _dictionary

_BEGIN = _PACKED + b"\x28\xb5\x2f\xfd"  # a zstd frame's magic number (RFC 8878, 3.1.1)
_LONGEST, _STEP = 65_536, 2_048  # of a frame; and so much of it is read at a time, because most are short


def unpacked(path: Path) -> bytes:
    """The file's bytes with every payload unpacked that can be; what is left of others stands as it is."""
    whole, parts, done = path.read_bytes(), list[bytes](), 0
    decompressor = ZstdDecompressor(dict_data=_dictionary)
    at = whole.find(_BEGIN)
    while at >= 0:
        frame, read, payload = decompressor.decompressobj(), at + 1, b""
        with contextlib.suppress(ZstdError):  # the rest of one that was overwritten
            while not frame.eof and read < min(len(whole), at + _LONGEST):
                payload += frame.decompress(whole[read : read + _STEP])
                read = min(len(whole), read + _STEP)
        if frame.eof:  # its own bytes are left out: words of it that happen to stand side by side there say nothing
            parts += [whole[done:at], b"\n", payload, b"\n"]
            done = read - len(frame.unused_data)
        else:
            parts += [payload, b"\n"]
        at = whole.find(_BEGIN, max(done, at + 1))
    return b"".join([*parts, whole[done:]])
