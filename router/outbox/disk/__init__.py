"""An outbox's directory as files: ``schema`` has their tables, ``writer`` the thread of each, ``sql`` what statements are
made with, ``lock`` the one process that owns them, ``space`` the room that is left.
"""
