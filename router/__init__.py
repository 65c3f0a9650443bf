"""Turnout: one event stream in, every destination out, nothing lost on the way.

The modules and packages here import only those before them in this order (``tests/test_imports.py`` holds it): words
(event, outcome, problem, secret), rules (pure: dialects, door, route, settings ...), edges (one kind of IO each:
outbox, transport ...), engines (collect, delivery, pull, console), wiring (config, app, cli ...).
"""
