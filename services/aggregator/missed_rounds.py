"""What rounds that this aggregator missed left behind: metrics, models and the server's state, from another one, each held to the chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError, ServiceError, UnavailableError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.server_steps import read_state, strategy_of
from services.aggregator import global_models, history
from services.aggregator.models import GlobalModel, OnchainRound
from services.aggregator.peers import Peer
from services.foundation.database import transaction
from services.foundation.objects import ObjectStore

Metrics = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class MissedRounds:
    """Fetches once what is not here, and keeps it. Peers are asked in turn until one answers; whoever shows something else is named."""

    engine: Engine
    objects: ObjectStore

    def metrics(self, peers: Sequence[Peer], federation_id: str, rounds: int) -> Metrics:
        """Metrics of the first `rounds` rounds, which are final on chain.

        Raises:
            DigestMismatchError, EncodingError: a peer shows others than stand on chain; it is named.
            UnavailableError: no peer has them.
        """
        with transaction(self.engine, read_only=True) as session:
            known = history.metrics(session, federation_id)
            final = (OnchainRound.federation_id == federation_id, OnchainRound.model.is_not(None))
            digests = {row.round: row.metrics for row in session.scalars(select(OnchainRound).where(*final))}
        for peer in peers:
            missing = [number for number in range(1, rounds + 1) if number not in known]
            if not missing:
                break
            try:
                shown = peer.aggregator.rounds(from_hex(federation_id))
            except (ServiceError, UnavailableError):
                continue
            for each in shown:
                if each.round in missing and each.metrics is not None:
                    _check(peer, each.round, each.metrics, digests.get(each.round))
                    known[each.round] = each.metrics
                    with transaction(self.engine) as session:
                        history.keep_metrics(session, federation_id, each.round, each.metrics)
        if any(number not in known for number in range(1, rounds + 1)):
            raise UnavailableError(f"no other aggregator shows the metrics of the {rounds} rounds of federation {federation_id} so far")
        return {number: known[number] for number in range(1, rounds + 1)}

    def base(self, peers: Sequence[Peer], config: FederationConfig, federation_id: str, *, after: int, record: str) -> GlobalModel | None:
        """The model that a round left, with the server's state beside it; None for a statistic.

        Args:
            after: the round, 0 for the founder's model.
            record: of the model, by the chain.

        Raises:
            DigestMismatchError, MalformedMessageError, EncodingError: a peer shows another model or state; it is named.
            UnavailableError: no peer has them.
        """
        if config.training is None:
            return None
        digest = self._state_digest(peers, config, federation_id, after)
        known = self._known(federation_id, after, record, digest)
        if known is not None:
            return known
        for peer in peers:
            try:
                content = peer.aggregator.model(from_hex(federation_id))
                state = b"" if digest is None else peer.aggregator.server_state(from_hex(federation_id))
            except (ServiceError, UnavailableError):
                continue
            file = global_models.received(content, config.training.model)
            if to_hex(file.record) != record:
                raise DigestMismatchError(f"model of round {after} as {peer.address} shows it", from_hex(record), file.record)
            if digest is not None:
                if sha256(state) != digest:
                    raise DigestMismatchError(f"state of the server after round {after} as {peer.address} shows it", digest, sha256(state))
                read_state(config.training, state, digest)
            key = global_models.keep(self.objects, federation_id, file, state)
            with transaction(self.engine) as session:
                global_models.record(session, federation_id, after, file, key, state)
            return self._known(federation_id, after, record, digest)
        raise UnavailableError(f"no other aggregator shows the model of round {after} of federation {federation_id}")

    def _state_digest(self, peers: Sequence[Peer], config: FederationConfig, federation_id: str, after: int) -> bytes | None:
        """Digest of the server's state after a round, by metrics whose own digest stands on chain; None if there is none."""
        plan = config.training
        if plan is None or after == 0 or not strategy_of(plan).state_shapes(plan.parameters):
            return None
        metrics = self.metrics(peers, federation_id, after)[after]
        try:
            return from_hex(metrics.get("state", ""), 32)
        except (EncodingError, TypeError, AttributeError) as error:
            raise MalformedMessageError(f"metrics of round {after}: expected the digest of the server's state: {error}") from error

    def _known(self, federation_id: str, after: int, record: str, state: bytes | None) -> GlobalModel | None:
        with transaction(self.engine, read_only=True) as session:
            row = session.get(GlobalModel, (federation_id, after))
        expected = None if state is None else to_hex(state)
        return row if row is not None and (row.record, row.state_digest) == (record, expected) else None


def _check(peer: Peer, number: int, metrics: dict[str, Any], digest: str | None) -> None:
    if digest is None:
        raise UnavailableError(f"the index has no digest of the metrics of round {number}: it was built before they were projected")
    found = sha256(canonical_json(metrics))
    if to_hex(found) != digest:
        raise DigestMismatchError(f"metrics of round {number} as {peer.address} shows them", from_hex(digest), found)
