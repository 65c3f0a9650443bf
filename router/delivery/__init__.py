"""Delivery: one lane per destination, each with its own queue, connections, pace and clock of retries.

``engine`` keeps the lanes in step with the configuration; ``lane`` takes, sends and settles; ``sender`` stands between
it and the partner. ``pace``, ``bisection``, ``ends`` and ``redact`` are the pure parts: how fast, which one is bad, what
an outcome makes of each event, and what of an answer may be kept.
"""
