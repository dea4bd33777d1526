"""Chip descriptions; each TOML file is a target (this module makes them package data)."""
