"""Data and trained networks that come with the tool, for the demo and the tests."""
