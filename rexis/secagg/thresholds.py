"""How many parties must stay for a round to be safe, and to finish."""

from dataclasses import dataclass
from typing import Literal

from rexis.errors import BelowThresholdError

Adversary = Literal["active", "semi-honest"]

# With two parties each subtracts its own update from the published sum.
MIN_PARTICIPANTS = 3


@dataclass(frozen=True)
class Thresholds:
    """What a round of n participants needs when up to `collusion_bound` of them work with the aggregator.

    Attributes:
        participants: n.
        collusion_bound: t_c.
        threshold: shares that rebuild a secret, t. Against an active adversary 2t > n + t_c: an honest site gives one of the two kinds of
            share for each other site, a colluder both, so that nobody gathers t of both kinds.
        min_survivors: updates that a revealed sum must hold: t, and two honest ones beside the colluders.
    """

    participants: int
    collusion_bound: int
    threshold: int
    min_survivors: int

    @property
    def dropouts(self) -> int:
        """How many participants may vanish before the round must be aborted."""
        return self.participants - self.min_survivors


def thresholds(participants: int, collusion_bound: int, adversary: Adversary = "active") -> Thresholds:
    """The thresholds of a roster.

    Raises:
        ValueError: a negative count.
        BelowThresholdError: too few participants for that collusion bound; the message gives the rule.
    """
    if participants < 0 or collusion_bound < 0:
        raise ValueError(f"expected counts, got {participants} participants and collusion bound {collusion_bound}")
    active = (participants + collusion_bound) // 2 + 1
    threshold = active if adversary == "active" else max(collusion_bound + 1, participants // 2 + 1)
    min_survivors = max(threshold, collusion_bound + 2)
    required = max(MIN_PARTICIPANTS, min_survivors)
    if participants < required:
        raise BelowThresholdError(
            f"participants, for t = {threshold} and min_survivors = max(t, t_c + 2) with t_c = {collusion_bound} ({adversary})",
            required,
            participants,
        )
    return Thresholds(participants, collusion_bound, threshold, min_survivors)


def check_survivors(needed: Thresholds, survivors: int) -> None:
    """Return if a sum over that many survivors may be revealed.

    Raises:
        BelowThresholdError: it may not; the round is aborted and its keys are burned.
    """
    if survivors < needed.min_survivors:
        raise BelowThresholdError("survivors of the round", needed.min_survivors, survivors)
