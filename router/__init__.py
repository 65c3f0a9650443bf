"""Turnout: one event stream in, every destination out, nothing lost on the way.

The rooms of this package import only upward in this order (``tests/test_imports.py`` holds it):
words (event, outcome, problem, secret, settings), rules (pure), edges (one kind of IO each), engines, wiring.
"""
