"""Whether training is over before its last round, by the losses on held-out rows that stand on chain: the same for whoever has them."""

from collections.abc import Mapping
from typing import Any

from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.server_steps import holdout_losses


def asks_for_losses(config: FederationConfig) -> bool:
    """Whether the federation has a rule of early stopping."""
    return config.training is not None and config.training.stopping is not None


def converged(config: FederationConfig, metrics: Mapping[int, Mapping[str, Any]], rounds: int) -> str | None:
    """Why training ends after `rounds` rounds or before, or None.

    Args:
        metrics: of final rounds, by round.
        rounds: how many are final.

    Raises:
        UnexpectedMessageError: metrics of one are missing.
        MalformedMessageError: metrics without a loss on held-out rows.
    """
    plan = config.training
    if plan is None or plan.stopping is None:
        return None
    missing = [number for number in range(1, rounds + 1) if number not in metrics]
    if missing:
        raise UnexpectedMessageError(f"expected metrics of each of {rounds} rounds, those of round {missing[0]} are not known here")
    after = plan.stopping.converged_after(holdout_losses(metrics[number] for number in range(1, rounds + 1)))
    if after is None:
        return None
    return f"converged after round {after}: no improvement of the loss on held-out rows (patience {plan.stopping.patience})"
