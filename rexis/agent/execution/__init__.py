"""Compute-to-data queries on the institution's premises: counted, gated, kept in the journal, and only then answered."""
