"""What was accepted: every event once, in order, cut into segment files of which only the newest is written.

``journal`` appends, ``entries`` are the rows of one segment and ``segments`` its files together, ``tail`` keeps the
newest in memory, ``dedup`` knows repeated ids, ``compression`` is how payloads lie there, ``vault`` encrypts what
partners need readable, ``wholeness`` looks before anything opens.
"""
