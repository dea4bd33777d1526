"""Reports of a deployment: data with a schema, for the terminal, as a page."""
