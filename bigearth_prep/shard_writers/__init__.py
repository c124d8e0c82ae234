"""Ways to store samples on disk."""
