"""What an institution commits to on chain before anybody can see a sum: the digest of its vector, salted, by a call that others relay."""

import secrets
from time import monotonic

from rexis.agent.federation.records import Commitment, FederationRecords, StoredAttempt
from rexis.agent.federation.registry import Registry
from rexis.chain.signer import Signer
from rexis.client.aggregator import AggregatorClient
from rexis.client.relayed_calls import RelayClient, sign_call
from rexis.commitments.positional_tree import SALT_BYTES
from rexis.errors import ServiceError
from rexis.protocol.federation_rounds import update_commitment
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import vector_record
from rexis.secagg.terms import RoundTerms

# Measured 71,000 with cold storage.
COMMIT_GAS = 200_000
# A commitment that is not seen on chain is handed in again this much later; it is the same relay.
COMMIT_AGAIN_S = 5.0
REVERTED = "urn:rexis:problem:contract-reverted"


class UpdateCommitments:
    """Makes, keeps and hands in the commitments of one institution."""

    def __init__(self, records: FederationRecords, registry: Registry, aggregator: AggregatorClient, signer: Signer) -> None:
        self._records, self._registry, self._aggregator, self._signer = records, registry, aggregator, signer
        self._handed_in_at: dict[bytes, float] = {}

    def keep(self, stored: StoredAttempt, terms: RoundTerms, vector: RingVector) -> None:
        """Commit to the vector of an attempt, in the journal; the first commitment counts."""
        salt, digest = secrets.token_bytes(SALT_BYTES), vector_record(vector)
        arguments = (stored.federation, terms.ctx, update_commitment(terms.ctx, self._signer.address, digest, salt))
        deployment = self._registry.chain.deployment
        call = sign_call(self._signer, deployment, "FederationRegistry", "commitUpdate", *arguments, gas=COMMIT_GAS)
        self._records.keep_commitment(stored, Commitment(digest + salt, call))

    def hand_in(self, stored: StoredAttempt, *, again: bool = False) -> None:
        """Hand a commitment that was kept to the aggregator that leads.

        Args:
            again: it may be on its way; nothing is done a moment after the last time.

        Raises:
            ServiceError, UnavailableError: the aggregator refuses it, or does not answer.
        """
        if again and monotonic() - self._handed_in_at.get(stored.ctx, float("-inf")) <= COMMIT_AGAIN_S:
            return
        kept = self._records.commitment(stored.ctx)
        assert kept is not None
        self._handed_in_at[stored.ctx] = monotonic()
        try:
            RelayClient(self._aggregator.leading(stored.federation).connection).hand_in(kept.call)
        except ServiceError as error:
            # A node that is behind refuses what it takes a moment later, and a commitment that is there already is refused as well.
            if error.problem.get("type") != REVERTED:
                raise

    def forget(self, ctx: bytes) -> None:
        """An attempt is over."""
        self._handed_in_at.pop(ctx, None)
