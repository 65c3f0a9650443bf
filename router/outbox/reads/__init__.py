"""What people are shown, beside a running owner or on the files alone: ``reader`` answers with the shapes of ``views``.

``snapshots`` opens the files read-only, ``account`` adds a lane up, ``pages`` and ``story`` put deliveries together.
"""
