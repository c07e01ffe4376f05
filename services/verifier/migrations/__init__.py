"""The migration history of the verifier's own tables; `python -m services.verifier.migrations` applies it."""
