"""What rounds that are final say to their members: metrics, the server's state, whether training goes on. Each is compared with the chain.

The aggregator shows the documents; their digests come from `RoundFinalised` events on the institution's own node.
"""

from collections.abc import Sequence
from typing import Any

from rexis.agent.federation.registry import Registry
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.secagg.server_steps import holdout_losses, initial_state, read_state
from rexis.training.strategies import State


class FinalRounds:
    """Results of rounds, checked once each."""

    def __init__(self, registry: Registry, aggregator: AggregatorClient) -> None:
        self._registry, self._aggregator = registry, aggregator
        self._metrics: dict[bytes, dict[int, dict[str, Any]]] = {}

    def metrics(self, federation: bytes, rounds: Sequence[int]) -> list[dict[str, Any]]:
        """Metrics of these rounds, which are final on chain.

        Raises:
            DigestMismatchError: the aggregator shows others than stand on chain.
            UnexpectedMessageError: it shows none of a round.
            UnavailableError: the node does not have the events yet.
        """
        known = self._metrics.setdefault(federation, {})
        missing = [number for number in rounds if number not in known]
        if missing:
            shown = {each.round: each.metrics for each in self._aggregator.rounds(federation) if each.state == "finished"}
            for number, digest in self._registry.metrics_digests(federation, missing).items():
                known[number] = _checked(federation, number, shown.get(number), digest)
        return [known[number] for number in rounds]

    def check_goes_on(self, federation: bytes, config: FederationConfig, round_number: int) -> None:
        """Check that the rule of early stopping lets a round take place.

        Raises:
            UnexpectedMessageError: training has converged before it. Others as `metrics`.
        """
        after = self.converged_after(federation, config, rounds=round_number - 1)
        if after is not None:
            raise UnexpectedMessageError(
                f"training converged after round {after}, by the losses on held-out rows in metrics whose digests stand on chain: "
                f"expected no round {round_number}"
            )

    def check_end(self, federation: bytes, config: FederationConfig, rounds: int) -> None:
        """Check that a federation which ended before its last round had converged.

        Args:
            rounds: how many are final on chain.

        Raises:
            UnexpectedMessageError: it had not. Others as `metrics`.
        """
        if rounds < config.rounds and self.converged_after(federation, config, rounds=rounds) is None:
            raise UnexpectedMessageError(
                f"the aggregator says that federation {to_hex(federation)} is finished after {rounds} of {config.rounds} rounds, "
                "and the losses on chain do not say that it converged"
            )

    def converged_after(self, federation: bytes, config: FederationConfig, *, rounds: int) -> int | None:
        """The round after which training ends by the rule of early stopping, of the first `rounds`; None if it goes on."""
        stopping = None if config.training is None else config.training.stopping
        if stopping is None:
            return None
        return stopping.converged_after(holdout_losses(self.metrics(federation, range(1, rounds + 1))))

    def server_state(self, federation: bytes, plan: TrainingPlan, after: int) -> State:
        """The state of the server's strategy after a round, 0 for that from which everybody starts.

        Raises:
            DigestMismatchError: the aggregator shows another state than the metrics on chain name. Others as `metrics`.
        """
        if after == 0:
            content = initial_state(plan)
            return read_state(plan, content, sha256(content))
        (metrics,) = self.metrics(federation, [after])
        try:
            digest = from_hex(metrics.get("state", ""), 32)
        except (EncodingError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"metrics of round {after}: expected the digest of the server's state: {error}") from error
        return read_state(plan, self._aggregator.server_state(federation), digest)


def _checked(federation: bytes, number: int, metrics: dict[str, Any] | None, digest: bytes) -> dict[str, Any]:
    if metrics is None:
        raise UnexpectedMessageError(f"expected metrics of round {number} of federation {to_hex(federation)}, the aggregator shows none")
    found = sha256(canonical_json(metrics))
    if found != digest:
        raise DigestMismatchError(f"metrics of round {number}", digest, found)
    return metrics
