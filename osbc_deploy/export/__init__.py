"""Write a fixed-point network for what runs it: firmware, chip images, NetX."""
