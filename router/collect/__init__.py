"""Collect: the one endpoint that senders know.

``http`` speaks HTTP (paths, deadlines, limits, CORS, answers), ``connections`` and ``admission`` say how much at once,
``keys`` says who sends. ``prepared`` brings the items of a request through the rules, ``intake`` stores them and says what
happened to each; ``webhooks`` takes what partners post. Where several processes collect, ``workers`` keeps them running and
``link`` stands between their ``prepared`` and the one ``intake``.
"""
