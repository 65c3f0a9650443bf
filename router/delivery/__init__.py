"""Delivery: one lane per destination, each with its own queue, connections, pace and clock of retries.

``engine`` keeps the lanes in step with the configuration, ``lane`` runs one. ``taking`` says what it sends next,
``batching`` when and how much at a time, ``deciding`` which of that is sent at all, ``holding`` whether the lane may
send; ``sending`` has the requests under way, ``sender`` is the way to the partner, ``settling`` writes down what
became of each event. ``hand`` and ``subjects`` are what is under way in memory, ``floor`` shares the processor among
lanes, ``quota`` counts a month.

``replay`` sends chosen events again. ``pace``, ``bisection``, ``ends`` and ``redact`` are the pure parts: how fast,
which one is bad, what an outcome makes of each event, and what of an answer may be kept.
"""
