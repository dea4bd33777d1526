"""snnTorch: its neurons and how its modules are read."""
