"""Pull: what no sender sends is fetched, and goes the way of everything that comes in.

``engine`` runs the sources of a configuration, ``puller`` is one source's rounds, ``memory`` what it has stored already.
"""
