"""The migration history of the marketplace's own tables; `python -m services.marketplace.migrations` applies it."""
