"""What the contracts' own views say, against the tables that services project from events: one row, one answer."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from rexis.chain.connection import Chain
from rexis.encoding import from_hex, to_hex
from services.aggregator.models import OnchainCommitment, OnchainFederation, OnchainRound
from services.foundation.database import now, transaction
from services.marketplace.catalogue import STATES
from services.marketplace.grants import status_of
from services.marketplace.models import AccessChange, CatalogueEntry, CommitteeMember, DatasetParent
from services.trainer.models import RegisteredModel
from services.verifier.models import BatchChallenge, CommittedBatch, OperatorStake, OperatorTerms, VouchedModel
from services.verifier.projections import OUTCOMES

# In the order of the contract's enums.
GRANTS = ("absent", "active", "expired", "suspended", "withdrawn")
MODELS = ("absent", "authorised", "revoked")
# Outcome of a batch by its stored status.
BATCHES = (None, None, None, "final", "rejected")

Difference = tuple[str, Any, Any]


def differences(engine: Engine, chain: Chain, service: str) -> list[Difference]:
    """Where a service's projected rows are not what the contracts answer: (what, expected by the contract, got in the table)."""
    with transaction(engine, read_only=True) as session:
        return [found for found in _COMPARISONS[service](session, chain) if found[1] != found[2]]


def _marketplace(session: Session, chain: Chain) -> Iterator[Difference]:
    registry, access = (chain.contract(name).functions for name in ("DatasetRegistry", "AccessManager"))
    entries = session.scalars(select(CatalogueEntry).order_by(CatalogueEntry.token_id)).all()
    yield "token ids", list(range(1, registry.count().call() + 1)), [entry.token_id for entry in entries]
    for entry in entries:
        root, policy, metadata, policy_version, metadata_version, epoch, _, state = registry.get(entry.token_id).call()
        expected = (
            *map(to_hex, (root, policy, metadata)), policy_version, metadata_version, epoch, STATES[state],
            registry.ownerOf(entry.token_id).call(), registry.tokenURI(entry.token_id).call(),
            registry.royaltyInfo(entry.token_id, 10_000).call()[1], registry.datasetOf(entry.registrant, root).call(),
        )  # fmt: skip
        got = (
            entry.content_root, entry.policy_hash, entry.metadata_hash, entry.policy_version, entry.metadata_version, entry.owner_epoch,
            entry.state, entry.owner, entry.uri, entry.royalty_bps, entry.token_id,
        )  # fmt: skip
        yield f"data set {entry.token_id}", expected, got
        parents = select(DatasetParent.parent).where(DatasetParent.child == entry.token_id).order_by(DatasetParent.parent)
        yield f"parents of {entry.token_id}", registry.parentsOf(entry.token_id).call(), list(session.scalars(parents))
    latest = select(AccessChange, status_of(AccessChange, now())).join(CatalogueEntry, CatalogueEntry.token_id == AccessChange.dataset)
    for change, status in session.execute(latest.where(AccessChange.latest)):
        key = (change.dataset, change.consumer, change.purpose)
        granted_at, until, policy_version, owner_epoch, grant_epoch, conditions = access.grantOf(*key).call()
        terms = (until, policy_version, owner_epoch, to_hex(conditions)) if granted_at else (None, None, None, None)
        found = (change.until, change.policy_version, change.owner_epoch, change.conditions_hash)
        yield f"grant {key}", (*terms, grant_epoch), (*found, change.grant_epoch)
        yield f"status of grant {key}", GRANTS[access.statusOf(*key).call()], "absent" if status == "revoked" else status
    of_entry = select(CommitteeMember, CatalogueEntry).join(CatalogueEntry, CatalogueEntry.token_id == CommitteeMember.dataset)
    for member, entry in session.execute(of_entry):
        decides = member.owner_epoch == entry.owner_epoch or member.member == entry.owner
        yield f"committee {member.dataset} {member.member}", access.isOnCommittee(member.dataset, member.member).call(), decides


def _aggregator(session: Session, chain: Chain) -> Iterator[Difference]:
    registry = chain.contract("FederationRegistry").functions
    for federation in session.scalars(select(OnchainFederation)):
        state = chain.contract("FederationRegistry").functions.get(from_hex(federation.id, 32)).call()
        founder, status, *_, config, model, manifest, survivors, accumulator = state
        round_number, attempt = state[5], state[6]
        yield f"federation {federation.id}", (founder, to_hex(config)), (federation.founder, federation.config_hash)
        yield f"federation {federation.id} closed", status == 4, federation.closed_by is not None
        of_federation = select(OnchainRound).where(OnchainRound.federation_id == federation.id)
        rounds = session.scalars(of_federation.order_by(OnchainRound.round, OnchainRound.attempt)).all()
        finalised = [each for each in rounds if each.model is not None]
        yield f"rounds of {federation.id}", round_number - 1, len(finalised)
        if finalised:
            yield f"model of {federation.id}", to_hex(model), finalised[-1].model
        if fixed := [each for each in rounds if each.survivors_hash is not None]:
            yield (
                f"survivors of {federation.id}", (to_hex(survivors), to_hex(accumulator)), (fixed[-1].survivors_hash, fixed[-1].accumulator)
            )  # fmt: skip
        else:
            yield f"survivors of {federation.id}", bytes(32), survivors
        if attempt > 0:
            last = rounds[-1] if rounds else None
            open_now = (round_number, attempt, to_hex(manifest), to_hex(model))
            yield f"attempt of {federation.id}", open_now, last and (last.round, last.attempt, last.manifest_hash, last.base_model)
    for commitment in session.scalars(select(OnchainCommitment)):
        made = registry.commitmentOf(from_hex(commitment.ctx, 32), commitment.participant).call()
        yield f"commitment {commitment.ctx} {commitment.participant}", to_hex(made), commitment.commitment


def _trainer(session: Session, chain: Chain) -> Iterator[Difference]:
    registry = chain.contract("ModelRegistry").functions
    for row in session.scalars(select(RegisteredModel)):
        status, reason, _, _, spec = registry.statusOf(row.owner, from_hex(row.record, 32)).call()
        yield f"model {row.record}", (MODELS[status], reason > 0), (row.state, row.revocation is not None)
        yield f"spec of {row.record}", to_hex(spec), row.spec_digest or to_hex(bytes(32))


def _verifier(session: Session, chain: Chain) -> Iterator[Difference]:
    models, batches = (chain.contract(name).functions for name in ("ModelRegistry", "InferenceRegistry"))
    for vouched in session.scalars(select(VouchedModel)):
        yield f"model {vouched.model}", models.isAuthorised(vouched.owner, from_hex(vouched.model, 32)).call(), vouched.authorised
    for batch in session.scalars(select(CommittedBatch)):
        operator, committed, count, status, terms, owner, _, model, record = batches.get(from_hex(batch.id, 32)).call()
        expected = (operator, count, owner, to_hex(model), to_hex(record), terms, BATCHES[status])
        yield (
            f"batch {batch.id}",
            expected,
            (batch.operator, batch.count, batch.owner, batch.model, batch.record, batch.terms, batch.outcome),
        )
        yield f"time of batch {batch.id}", committed + batches.CHALLENGE_TIME().call(), batch.until
    for terms in session.scalars(select(OperatorTerms)):
        told = batches.termsOf(terms.operator, terms.number).call()
        yield f"terms {terms.number} of {terms.operator}", told, (terms.token, int(terms.bond), terms.arbiter)
    for stake in session.scalars(select(OperatorStake)):
        yield f"stake of {stake.operator}", batches.stakeOf(stake.operator, stake.token).call()[0], int(stake.total)
    for made in session.scalars(select(BatchChallenge)):
        outcome, deadline = batches.challengeOf(from_hex(made.batch, 32), made.index, made.challenger).call()
        yield f"challenge of {made.batch}", (OUTCOMES[outcome], deadline), (made.outcome, made.deadline)


_COMPARISONS: Mapping[str, Callable[[Session, Chain], Iterator[Difference]]] = {
    "marketplace": _marketplace,
    "aggregator": _aggregator,
    "trainer": _trainer,
    "verifier": _verifier,
}
