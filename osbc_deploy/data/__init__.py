"""Samples: spikes, counts or real values with labels, from files, data sets and recordings."""
