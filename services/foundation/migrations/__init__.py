"""The one migration history of the foundation's tables."""
