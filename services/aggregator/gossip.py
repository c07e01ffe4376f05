"""Aggregators compare what they were shown: whoever signed one thing for one of them and another for the next is found out.

Approvals are public within a federation and carry their own proof, so it does not matter who passes them on.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from rexis.encoding import from_hex
from rexis.errors import RexisError
from services.aggregator import approvals
from services.aggregator.models import ApprovalRow, Federation, OnchainRound
from services.aggregator.peers import Peer
from services.aggregator.registry_calls import Registry
from services.foundation.database import transaction

log = structlog.get_logger(__name__)

# Attempts that are compared, newest first; a federation has at most one that runs.
COMPARED_AT_ONCE = 64

Attempted = tuple[str, int, int]


class Gossip:
    """Asks peers what they know about the attempts that were signed here, until they were asked once after the attempt's end."""

    def __init__(self, engine: Engine, registry: Registry, peers: Sequence[Peer]) -> None:
        self._engine, self._registry, self._peers = engine, registry, peers
        self._done: set[tuple[str, Attempted]] = set()

    def run_once(self) -> int:
        """One pass. Returns the number of aggregators that were newly found to have signed two things."""
        with transaction(self._engine, read_only=True) as session:
            compared = _newest(session)
        self._done &= {(peer.address, attempt) for peer in self._peers for attempt in compared}
        return sum(self._ask(peer, attempt) for peer in self._peers for attempt in compared if (peer.address, attempt) not in self._done)

    def _ask(self, peer: Peer, attempt: Attempted) -> int:
        federation_id, round_number, number = attempt
        with transaction(self._engine, read_only=True) as session:
            aggregators = {aggregator.address for aggregator in session.get_one(Federation, federation_id).aggregators}
            ended = _is_over(session, attempt)
        if peer.address not in aggregators:
            return 0
        try:
            shown = peer.approvals.approvals(from_hex(federation_id), round_number, number)
        except RexisError as error:
            # It is away, or has not heard of this federation; the next pass asks again.
            log.debug("a peer does not say what it knows", peer=peer.address, error=str(error))
            return 0
        found = 0
        for approval in shown:
            try:
                with transaction(self._engine) as session:
                    federation = session.get_one(Federation, federation_id)
                    found += approvals.record(session, self._registry, federation, approval) is not None
            except RexisError as error:
                log.warning("a peer shows an approval that counts for nothing", peer=peer.address, error=str(error))
        if ended:
            self._done.add((peer.address, attempt))
        return found


def _newest(session: Session) -> list[Attempted]:
    key = ApprovalRow.federation_id, ApprovalRow.round, ApprovalRow.attempt
    query = select(*key).group_by(*key).order_by(func.max(ApprovalRow.taken_at).desc()).limit(COMPARED_AT_ONCE)
    return [(federation, round_number, number) for federation, round_number, number in session.execute(query)]


def _is_over(session: Session, attempt: Attempted) -> bool:
    row = session.get(OnchainRound, attempt)
    return row is not None and (row.finalised_transaction or row.abandoned_transaction) is not None
