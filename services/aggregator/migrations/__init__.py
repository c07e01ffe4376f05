"""The migration history of the aggregator's own tables; `python -m services.aggregator.migrations` applies it."""
