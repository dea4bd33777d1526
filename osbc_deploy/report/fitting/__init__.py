"""Reports of a fit to chip: data, and its front as a picture."""
