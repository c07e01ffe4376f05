"""The verifier's API: `uvicorn --factory services.verifier.app:create_app`. It never loads torch."""

from fastapi import FastAPI

from services.foundation.assembly import create_api
from services.foundation.relays import relay_progress_router, relay_router
from services.verifier.routes import router
from services.verifier.settings import VerifierSettings

# Calls that the verifier sends as they are: of whoever holds a receipt, of operators, and of arbiters.
DOORS = {
    "InferenceRegistry": ("deposit", "unstake", "setTerms", "challenge", "answerChallenge", "rule", "settle", "finalise", "withdraw"),
    "EvaluationRegistry": (
        "open",
        "commitNonce",
        "commitRun",
        "fixBeacon",
        "revealNonce",
        "attest",
        "revoke",
        "revokeByAuditors",
        "dispute",
        "resolve",
        "expire",
    ),
}


def create_app(settings: VerifierSettings | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment."""
    return create_api(
        settings or VerifierSettings.from_environment(),
        title="Rexis verifier",
        summary="Inference receipts signed by providers, kept and committed on chain for whoever holds them to it.",
        routers=[router, relay_router(DOORS), relay_progress_router()],
    )
