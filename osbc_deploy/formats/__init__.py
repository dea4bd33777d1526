"""Networks in files: each format's file, reader and writer side by side."""
