"""The outbox: what was accepted, and what became of it, on disk. The only SQL in the house.

``outbox.Outbox`` owns a directory and is what the engines use; ``reader`` is for people, beside a running owner or on
the files alone. ``log`` and ``state`` hold the statements, ``schema`` the tables, ``writer`` the threads.
"""

import sqlite3

SQLITE = sqlite3.sqlite_version_info[:3]  # of the library that this process uses
