"""A deployed network on your own data: by the engine, or as the code that its device runs."""
