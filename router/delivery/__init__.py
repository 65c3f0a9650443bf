"""Delivery: one lane per destination, each with its own queue, connections, pace and clock of retries.

``engine`` keeps the lanes in step with the configuration; ``lane`` takes, sends and settles; ``pace``, ``bisection``
and ``ends`` are its pure parts: how fast, which one is bad, and what an outcome makes of each event.
"""
