"""A report held against its network, a budget and a baseline."""
