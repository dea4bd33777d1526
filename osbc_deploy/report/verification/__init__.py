"""Reports of a verification: data with a schema, for the terminal, as a page."""
