"""The console: a port of its own for people who run this, and for their programs.

``server`` makes the application, ``routes`` is the table of its addresses, which is also its OpenAPI document;
``api`` answers them, ``pages`` shows the same to people, both by way of ``questions``; ``acts`` are the operator's,
``guard`` keeps strangers and strange pages out. Reads go through
``router.outbox.reads``; acts go to the lanes, and each leaves a row in the audit.
"""

from router.console.server import application

__all__ = ["application"]
