"""What devices report, held against a baseline: drift, and health; see docs/monitoring.md."""
