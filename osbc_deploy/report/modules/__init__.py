"""Reports of a module's compressed weights: data, its schema, and the terminal."""
