"""Samples: spike rasters with labels, from files, datasets and the bundled digits."""
