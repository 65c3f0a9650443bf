"""The outbox: what was accepted, and what became of it, on disk. The only SQL of this program.

``outbox`` owns a directory and is what the engines use. Its rooms, each of which knows those before it: ``disk``, the
files; ``log``, what was accepted; ``state``, what became of it; ``reads``, for people; ``upkeep``, forgetting and
copying.
"""

import sqlite3

SQLITE = sqlite3.sqlite_version_info[:3]  # of the library that this process uses
