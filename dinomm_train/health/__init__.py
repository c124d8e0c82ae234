"""What tells, while a run learns, whether its features are worth learning."""
