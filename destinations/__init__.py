"""The partners, one file each: what to send them and what their answers mean. No IO, no clock.

A destination may import the words, ``router.identifiers`` and ``router.destination`` only. To add one: its file, its
name here, its case files. Packages outside this repository use the entry-point group ``turnout.destinations``.
"""
