"""The report: one structure, shown in the terminal or written as JSON."""
