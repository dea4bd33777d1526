"""Reports of a sweep: data, table, CSV, and a page with its front."""
