"""Collect: the one endpoint that senders know.

``http`` speaks HTTP (paths, deadlines, limits, CORS, answers), ``keys`` says who sends, ``intake`` brings the items of
a request through the rules into the outbox and says what happened to each.
"""
