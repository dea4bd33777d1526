"""A deployed network on one's own data: by the engine, or as the code that its device runs."""
