"""A network as a C99 library: tables, fixed code, and what it takes."""
