"""`python -m services.verifier.migrations`: bring the verifier's database to the newest revision; idempotent."""

from services.foundation.assembly import run_migration_command
from services.verifier.settings import VerifierSettings

if __name__ == "__main__":
    run_migration_command(VerifierSettings)
