"""NIR graphs: the file, its neurons, reading and writing."""
