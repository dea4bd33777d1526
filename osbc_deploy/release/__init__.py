"""Signed network images, and a store of two slots that goes back to the last good one.

The specification that this room and the C library in ``c/`` both follow is docs/releases.md.
"""
