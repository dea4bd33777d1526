"""Judgements of the monitor, for people."""
