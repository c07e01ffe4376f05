"""Trainer: takes encrypted batches and models from institutions and computes on them without ever holding a key."""
