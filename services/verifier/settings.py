"""Settings of the verifier."""

from services.foundation.settings import ServiceSettings


class VerifierSettings(ServiceSettings):
    """Nothing beyond what every service needs: the verifier reads the chain and writes nothing to it yet."""

    service = "verifier"
