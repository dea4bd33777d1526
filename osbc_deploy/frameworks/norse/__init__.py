"""norse: its neurons and how its modules are read."""
