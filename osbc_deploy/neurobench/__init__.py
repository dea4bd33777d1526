"""NeuroBench: its harness, and the quantities it asks for, counted."""
