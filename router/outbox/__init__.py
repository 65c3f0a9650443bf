"""The outbox: what was accepted, and what became of it, on disk. The only SQL of this program.

``outbox`` owns a directory and is what the engines use; ``reader`` is for people, beside a running owner or on the
files alone. What was accepted is in the ``log``: ``journal`` appends, ``segments`` reads its files, ``tail`` keeps
the newest in memory, ``dedup`` knows repeated ids, ``vault`` encrypts what partners need readable. What became of it
is in the ``state``: ``settlements`` writes it down in groups, ``lane`` is a destination's place, ``memory`` what is
remembered for a while, ``replays`` what is sent again.

``retention`` forgets by age and ``bounds`` by size, ``forgetting`` erases people and ``suppression`` keeps them out.
``space`` watches the disk, ``crashes`` and ``inhand`` find what killed the process, ``wholeness`` looks before
anything opens, ``backup`` copies it. ``schema`` has the tables, ``writer`` the threads, ``views`` the shapes of every
read.
"""

import sqlite3

SQLITE = sqlite3.sqlite_version_info[:3]  # of the library that this process uses
