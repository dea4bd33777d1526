"""The chip: what it is (targets), what a network costs on it (memory), how it is split (cores)."""
