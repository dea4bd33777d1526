"""Names of the files that parent and worker exchange."""

INPUT = "input.npz"
OUTPUT = "output.npz"
PREFIX = "osbc-lava-"
"""What the name of a temporary folder starts with; the worker removes no other folder."""
