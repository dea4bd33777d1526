"""What a device counted while a network ran on it: records, decoded and linked to the user's model."""
