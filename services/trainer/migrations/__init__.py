"""The migration history of the trainer's own tables; `python -m services.trainer.migrations` applies it."""
