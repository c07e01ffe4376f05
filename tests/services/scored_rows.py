"""A federation with scores whose rounds are over, as the aggregator's background process leaves it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy.orm import Session

from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.protocol.contributions import ContributionBundle
from rexis.protocol.federation_config import FederationConfig
from services.aggregator import attempts, foundings
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, OnchainRound
from services.aggregator.registry_calls import Registry
from services.foundation.database import now
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.unit.scored_federations import bundle_of, metrics_of, scored_document, seed_of


@dataclass(frozen=True)
class ScoredFederation:
    """Nine members, the first of which sends nothing; `owner` founded it."""

    owner: LocalSigner
    rounds: int = 10
    members: list[LocalSigner] = field(
        default_factory=lambda: sorted((LocalSigner.generate() for _ in range(9)), key=lambda signer: signer.address.lower())
    )

    @cached_property
    def aggregator(self) -> LocalSigner:
        return LocalSigner.generate()

    @cached_property
    def config(self) -> FederationConfig:
        addresses = [member.address for member in self.members]
        return FederationConfig.parse(scored_document(addresses, founder=self.owner.address, aggregators=[self.aggregator.address]))

    @property
    def registry(self) -> Registry:
        return Registry.of(load(LOCAL_CHAIN_ID))

    @property
    def id(self) -> str:
        return to_hex(self.config.id(self.registry.chain_id, self.registry.address))

    @property
    def bundle(self) -> ContributionBundle:
        """What the rows say."""
        return bundle_of(self.config, bytes.fromhex(self.id[2:]), self.rounds, idle=1)

    def add(self, session: Session, *, state: str = "finished", seeds: Mapping[int, bytes] | None = None) -> None:
        """Write it; the rows of the chain index as well, unless blocks of a chain drew the groups."""
        stored = foundings.found(session, self.config, self.id, model=bytes(32), intent_key=f"relay:{self.id}")
        stored.state, nothing = state, to_hex(bytes(32))
        for number in range(1, self.rounds + 1):
            attempt = Attempt(federation_id=self.id, round=number, number=1, manifest={}, manifest_digest=nothing)
            attempt.opened_at = attempt.finished_at = now()
            attempts.enter(attempt, Phase.FINISHED)
            attempt.base_model = nothing
            attempt.ctx = to_hex(attempts.terms_of(self.registry, stored, attempt).ctx)
            attempt.survivors, attempt.metrics = list(self.config.roster), self.metrics(number, seeds)
            session.add(attempt)
            if seeds is not None:
                continue
            chain = OnchainRound(federation_id=self.id, round=number, attempt=1, manifest_hash=nothing, base_model=nothing)
            chain.opened_transaction, chain.opened_block = nothing, to_hex(seed_of(number))
            session.add(chain)

    def metrics(self, number: int, seeds: Mapping[int, bytes] | None = None) -> dict[str, Any]:
        """Of a round."""
        return metrics_of(self.config, number, idle=1, seed=None if seeds is None else seeds[number])
