"""Names of the files that parent and worker exchange."""

INPUT = "input.npz"
OUTPUT = "output.npz"
