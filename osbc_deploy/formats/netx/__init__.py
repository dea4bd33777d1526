"""NetX files of lava-dl: the file, reading and writing."""
