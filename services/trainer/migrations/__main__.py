"""`python -m services.trainer.migrations`: bring the trainer's database to the newest revision; idempotent."""

from services.foundation.assembly import run_migration_command
from services.trainer.settings import TrainerSettings

if __name__ == "__main__":
    run_migration_command(TrainerSettings)
