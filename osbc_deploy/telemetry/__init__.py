"""What devices counted while a network ran on them: records, linked to the user's model."""
