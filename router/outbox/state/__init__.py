"""What became of the accepted events: one file, one transaction a call, on the file's own thread.

Counters change in the transaction of the rows they count. ``deliveries`` are runs, rows and attempts, ``cursors`` the
lanes, ``selections`` what an operator means by some of them, ``registers`` what is listed beside, ``memory`` what is
remembered for a while, ``replays`` what is sent again. ``lane`` is a destination's place in memory, ``settlements``
shares commits among lanes, ``bounds`` limits what others make us keep; ``crashes`` and ``inhand`` find what killed the
process.
"""
