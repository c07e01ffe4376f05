"""The job of an aggregator for the federations that another one leads: it does the leader's sums again, and signs what it finds itself.

A witness takes nothing on the leader's word. The config follows from the federation's id, manifest, commitments and survivors stand in its
own index of the chain, every message carries its sender's signature, every vector the digest that its owner signed. What the leader can
do is to say nothing; then the witness does not sign either.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Engine, select

from rexis.chain.signer import Signer
from rexis.client.aggregator import WorkItem
from rexis.encoding import from_hex, to_hex
from rexis.errors import (
    DigestMismatchError,
    EncodingError,
    EquivocationError,
    ProtocolError,
    ServiceError,
    SignatureError,
    UnavailableError,
    UnexpectedMessageError,
    VerificationError,
)
from rexis.protocol.approvals import Approval, Kind, Statement
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import Survivors
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.coordinator import Coordinator
from rexis.secagg.survivors import FixedSurvivors
from services.aggregator import approvals, attempts, global_models, held_sums, history, results, stopping, witnessed
from services.aggregator.leads import WITNESSING
from services.aggregator.missed_rounds import MissedRounds
from services.aggregator.models import Attempt, Federation, GlobalModel, OnchainCommitment, OnchainRound
from services.aggregator.peers import Peer
from services.aggregator.registry_calls import Registry
from services.foundation.database import transaction
from services.foundation.objects import ObjectStore

log = structlog.get_logger(__name__)

LONGEST_REST_S = 30.0
EQUIVOCATION = "urn:rexis:problem:equivocation"
# Why a witness does not agree; what is not among them is tried again without a word.
REFUSALS = (ProtocolError, VerificationError, EncodingError, ValueError, FileNotFoundError)


@dataclass(frozen=True)
class Seen:
    """An attempt as this side knows it: the federation's config, what the chain has, and what was signed here."""

    config: FederationConfig
    chain: OnchainRound
    own: dict[Kind, Approval]


class Witnesses:
    """Witnesses for the peers that the operator named; two of them may overlap, and each may be killed anywhere.

    Args:
        signer: this aggregator's key.
        peers: who may lead.
    """

    def __init__(self, engine: Engine, objects: ObjectStore, registry: Registry, signer: Signer, peers: Sequence[Peer]) -> None:
        self._engine, self._objects, self._registry, self._signer, self._peers = engine, objects, registry, signer, peers
        self._missed = MissedRounds(engine, objects)
        self._introduced: set[str] = set()
        self._prepared: dict[bytes, tuple[int, int]] = {}
        self._rests: dict[tuple[str, bytes], tuple[int, float]] = {}

    def run_once(self) -> int:
        """One pass over what the peers wait for. Returns the number of approvals that were handed in."""
        given = 0
        for peer in self._peers:
            if self._rests_until(peer, b"") > time.monotonic():
                continue
            try:
                given += self._visit(peer)
                self._rests.pop((peer.address, b""), None)
            except (UnavailableError, ServiceError, *REFUSALS) as error:
                log.warning("a peer can not be witnessed for", peer=peer.address, error=str(error), next_try_s=self._rest(peer, b""))
        held_sums.drop_ended(self._engine, self._objects)
        for number, rounds in witnessed.settle(self._engine).items():
            self._catch_up(number, rounds)
        return given

    def _visit(self, peer: Peer) -> int:
        if peer.address not in self._introduced:
            account = peer.aggregator.account()
            if account != peer.address:
                raise SignatureError(f"expected the aggregator {peer.address} at {peer.approvals.connection.base_url}, got {account}")
            self._introduced.add(peer.address)
        given = 0
        for item in peer.aggregator.work():
            if self._rests_until(peer, item.federation) > time.monotonic():
                continue
            try:
                given += self._attend(peer, item)
                self._rests.pop((peer.address, item.federation), None)
            except ServiceError as error:
                if error.problem["type"] == EQUIVOCATION:
                    self._refuse(peer, item, error)
                elif error.status not in (404, 409):  # by which the leader says that the attempt has moved on meanwhile
                    raise
            except REFUSALS as error:
                self._refuse(peer, item, error)
        return given

    def _attend(self, peer: Peer, item: WorkItem) -> int:
        kind, number = approvals.AWAITED.get(item.stage), (item.round, item.attempt)
        is_due = item.due and kind is not None
        if not is_due and self._prepared.get(item.federation) == number:
            return 0
        if not witnessed.adopt(self._engine, self._registry, self._signer.address, peer, item):
            return 0
        seen = self._seen(peer, item)
        if seen is None:
            return 0
        if self._prepared.get(item.federation) != number:
            # Whoever has what the round starts from can go on with it when its leader is gone.
            self._base(peer, seen)
            self._prepared[item.federation] = number
        if not is_due or kind is None:
            return 0
        approval = seen.own.get(kind)
        if approval is None:
            approval = self._survivors(peer, item, seen) if kind is Kind.SURVIVORS else self._result(peer, item, seen)
        if approval is None:
            return 0
        peer.approvals.approve(approval)
        self._compare(peer, item, approval)
        return 1

    def _seen(self, peer: Peer, item: WorkItem) -> Seen | None:
        number = to_hex(item.federation)
        with transaction(self._engine, read_only=True) as session:
            config = FederationConfig.parse(session.get_one(Federation, number).config)
            chain = session.get(OnchainRound, (number, item.round, item.attempt))
            evidence = [found for found in approvals.evidence_of(session, number) if found.signer in (peer.address, self._signer.address)]
            signed = approvals.of_attempt(session, number, item.round, item.attempt)
        if chain is None or chain.abandoned_transaction is not None or chain.opened_by not in (None, peer.address):
            return None
        if evidence:
            raise evidence[0].error()
        manifest = item.manifest
        if (manifest.federation, manifest.round, manifest.attempt) != (item.federation, item.round, item.attempt):
            raise UnexpectedMessageError(f"expected the manifest of round {item.round}, attempt {item.attempt}, got another one's")
        if to_hex(manifest.digest) != chain.manifest_hash:
            raise DigestMismatchError(f"manifest of round {item.round}", from_hex(chain.manifest_hash), manifest.digest)
        manifest.check(config, federation=item.federation, base_model=from_hex(chain.base_model))
        self._check_goes_on(peer, config, chain)
        return Seen(config, chain, {approval.kind: approval for approval in signed if approval.signer == self._signer.address})

    def _survivors(self, peer: Peer, item: WorkItem, seen: Seen) -> Approval | None:
        """Sign the survivors, after the leader has: whoever shows different sets to different witnesses has signed them all."""
        leaders = self._leaders(peer, item, Kind.SURVIVORS)
        if leaders is None or seen.chain.survivors_hash is not None:
            return None
        coordinator = self._coordinator(peer, item, seen)
        fixed = coordinator.survivors.fixed
        statement = Survivors(item.federation, item.round, item.attempt, fixed.survivors, fixed.masked)
        if leaders.statement != statement:
            raise EquivocationError(
                f"{peer.address} signed the survivors {to_hex(leaders.statement.survivors_hash)}, and shows messages that give "
                f"{to_hex(fixed.survivors)} with masked vectors {to_hex(fixed.masked)}"
            )
        self._check_commitments(coordinator)
        held_sums.hold(self._engine, self._objects, peer, coordinator)
        return self._sign(statement)

    def _result(self, peer: Peer, item: WorkItem, seen: Seen) -> Approval | None:
        """Open the sum that the chain fixed, make the new model of it, and sign it."""
        chain = seen.chain
        if chain.survivors_hash is None or chain.masked_record is None:
            return None
        coordinator = self._coordinator(peer, item, seen)
        coordinator.close_survivors(fixed=FixedSurvivors(from_hex(chain.survivors_hash), from_hex(chain.masked_record)))
        for message in peer.aggregator.messages(item.federation, item.round, item.attempt, Stage.UNMASK):
            coordinator.receive(message)
        totals = coordinator.unmask(held_sums.hold(self._engine, self._objects, peer, coordinator))
        opening = results.Opening(seen.config, coordinator, {}, self._base(peer, seen))
        outcome = results.decoded(self._objects, opening, totals)
        key = "" if outcome.file is None else global_models.keep(self._objects, chain.federation_id, outcome.file, outcome.state)
        with transaction(self._engine) as session:
            session.get_one(Federation, chain.federation_id).result = outcome.document
            if outcome.file is not None:
                global_models.record(session, chain.federation_id, chain.round, outcome.file, key, outcome.state)
            if outcome.metrics is not None:
                history.keep_metrics(session, chain.federation_id, chain.round, outcome.metrics)
        survivors = coordinator.terms.addresses(coordinator.survivors.positions)
        return self._sign(
            approvals.result_statement(
                seen.config, chain, survivors, aggregate=outcome.aggregate, model=outcome.model, metrics=outcome.metrics
            )
        )

    def _coordinator(self, peer: Peer, item: WorkItem, seen: Seen) -> Coordinator:
        """The attempt up to its survivors, from the sites' own signed messages."""
        attempt = Attempt(federation_id=seen.chain.federation_id, round=item.round, number=item.attempt)
        attempt.manifest_digest, attempt.base_model = seen.chain.manifest_hash, seen.chain.base_model
        federation = Federation(id=seen.chain.federation_id, config=seen.config.document())
        coordinator = Coordinator(attempts.terms_of(self._registry, federation, attempt))
        with transaction(self._engine, read_only=True) as session:
            seed = attempts.graph_seed(session, seen.config, attempt)
        close_keys = partial(coordinator.close_keys, graph_seed=seed)
        closings = {Stage.KEYS: close_keys, Stage.SHARES: coordinator.close_shares, Stage.MASKED: coordinator.close_masked}
        for stage, close in closings.items():
            for message in peer.aggregator.messages(item.federation, item.round, item.attempt, stage):
                coordinator.receive(message)
            close()
        return coordinator

    def _check_commitments(self, coordinator: Coordinator) -> None:
        terms = coordinator.terms
        with transaction(self._engine, read_only=True) as session:
            query = select(OnchainCommitment.participant).where(OnchainCommitment.ctx == to_hex(terms.ctx))
            there = set(session.scalars(query))
        without = [address for address in terms.addresses(coordinator.survivors.positions) if address not in there]
        if without:
            raise UnexpectedMessageError(
                f"expected survivors who committed to their updates, the chain has nothing of {', '.join(without)}"
            )

    def _base(self, peer: Peer, seen: Seen) -> GlobalModel | None:
        chain = seen.chain
        return self._missed.base(self._from(peer), seen.config, chain.federation_id, after=chain.round - 1, record=chain.base_model)

    def _check_goes_on(self, peer: Peer, config: FederationConfig, chain: OnchainRound) -> None:
        """That the losses on chain let this round take place."""
        if stopping.asks_for_losses(config):
            metrics = self._missed.metrics(self._from(peer), chain.federation_id, chain.round - 1)
            over = stopping.converged(config, metrics, chain.round - 1)
            if over is not None:
                raise UnexpectedMessageError(f"training {over}: expected no round {chain.round}")

    def _from(self, leader: Peer) -> list[Peer]:
        """Whom to ask for what was missed: the leader first, so that it is named if it shows something else than stands on chain."""
        return [leader, *(peer for peer in self._peers if peer.address != leader.address)]

    def _catch_up(self, number: str, rounds: int) -> None:
        """Fetch the losses that say whether a federation is over."""
        for peer in self._peers:
            if self._rests_until(peer, from_hex(number)) > time.monotonic():
                continue
            try:
                self._missed.metrics([peer], number, rounds)
                return
            except (UnavailableError, *REFUSALS) as error:
                log.warning("metrics of missed rounds", federation=number, reason=str(error), next_try_s=self._rest(peer, from_hex(number)))

    def _sign(self, statement: Statement) -> Approval:
        with transaction(self._engine) as session:
            approval = approvals.sign(session, self._registry, self._signer, statement)
        log.info("signed", federation=to_hex(statement.federation), round=statement.round_number, kind=approval.kind.value)
        return approval

    def _leaders(self, peer: Peer, item: WorkItem, kind: Kind) -> Approval | None:
        """What the leader itself signed; everything that it shows is kept, so that others can compare."""
        shown, number = peer.approvals.approvals(item.federation, item.round, item.attempt), to_hex(item.federation)
        with transaction(self._engine, read_only=True) as session:
            known = approvals.of_attempt(session, number, item.round, item.attempt)
        for approval in shown:
            if approval.attempt != (item.federation, item.round, item.attempt):
                raise UnexpectedMessageError(f"{peer.address} shows approvals of another attempt")
            if approval in known:
                continue
            with transaction(self._engine) as session:
                evidence = approvals.record(session, self._registry, session.get_one(Federation, number), approval)
            if evidence is not None and evidence.signer == peer.address:
                raise evidence.error()
        return next((approval for approval in shown if (approval.signer, approval.kind) == (peer.address, kind)), None)

    def _compare(self, peer: Peer, item: WorkItem, own: Approval) -> None:
        leaders = self._leaders(peer, item, own.kind)
        if leaders is not None and leaders.statement != own.statement:
            raise EquivocationError(f"{peer.address} signed another {own.kind} than its own messages and vectors give")
        with transaction(self._engine) as session:
            session.get_one(Federation, to_hex(item.federation)).reason = None

    def _refuse(self, peer: Peer, item: WorkItem, error: Exception) -> None:
        """Leave the leader alone for a while; whoever asks this witness about the federation reads why."""
        number, reason = to_hex(item.federation), f"round {item.round}, attempt {item.attempt}, led by {peer.address}: {error}"
        pause = self._rest(peer, item.federation)
        log.error("a witness does not agree", federation=number, leader=peer.address, reason=reason, next_try_s=pause)
        with transaction(self._engine) as session:
            federation = session.get(Federation, number)
            if federation is not None and federation.state == WITNESSING:
                federation.reason = reason

    def _rest(self, peer: Peer, federation: bytes) -> float:
        count, _ = self._rests.get((peer.address, federation), (0, 0.0))
        pause = min(0.5 * 2.0**count, LONGEST_REST_S)
        self._rests[peer.address, federation] = min(count + 1, 16), time.monotonic() + pause
        return pause

    def _rests_until(self, peer: Peer, federation: bytes) -> float:
        return self._rests.get((peer.address, federation), (0, 0.0))[1]
