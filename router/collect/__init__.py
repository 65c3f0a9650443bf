"""Collect: the one endpoint that senders know.

``server`` serves the ``connections`` that it takes. ``http`` reads requests (paths, deadlines, limits, keys, CORS) and
``answers`` says how; ``admission`` says how much at once, ``keys`` who sends, ``network`` from which address.
``preparing`` brings the items of a request through the rules, in ``rounds`` with those that came at the same time;
``intake`` stores them and says what happened to each; ``webhooks`` takes what partners post. Where other processes collect,
``workers`` keeps them running and ``link`` stands between their rounds and the one ``intake``.
"""
