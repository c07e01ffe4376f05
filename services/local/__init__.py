"""The whole platform on one machine: embedded parts, services, workers."""
