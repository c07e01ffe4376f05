"""Settings of the trainer."""

from services.foundation.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """Nothing beyond what every service needs; what a job computes is in its specification, not in the environment."""

    service = "trainer"
