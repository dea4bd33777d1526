"""From the compressed network to the integers of a chip."""
