"""Reports of all results: plain data with a JSON schema, for the terminal and as HTML pages.

A folder holds what is there for one kind of result: its data (``build.py``), its schema, and its
views. :mod:`.rendering` chooses among them, and saves.
"""
