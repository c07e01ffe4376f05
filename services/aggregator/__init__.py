"""Aggregator: federations of institutions, with thresholds under which no single update can be seen."""
