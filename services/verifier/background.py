"""The verifier's background process: `python -m services.verifier.background`. It has no jobs of its own yet."""

from services.foundation.assembly import run_service_background
from services.verifier.settings import VerifierSettings

if __name__ == "__main__":
    run_service_background(VerifierSettings, lambda _settings, _engine: [])
