"""The job of an aggregator when another one that led a federation is gone: it goes on in its place.

What counts is the chain alone. An attempt that stands there past its deadline is given up, and the next one opened by whoever's turn it
is; the silent leader, when it comes back, finds another one's attempt there and becomes a witness. The contract opens each attempt once
and fixes survivors once a round, so whoever comes second changes nothing; a round whose survivors are fixed is finished with what a quorum
signed, or ends the federation.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, ProtocolError, ServiceError, UnavailableError, VerificationError
from rexis.protocol.approvals import Kind
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import RoundResult
from rexis.protocol.secagg_messages import secagg_context
from services.aggregator import approvals, attempts, leads, stopping
from services.aggregator.attempts import MAX_ATTEMPTS
from services.aggregator.leads import WITNESSING
from services.aggregator.missed_rounds import MissedRounds
from services.aggregator.models import Attempt, Federation, OnchainFederation, OnchainRound
from services.aggregator.peers import Peer
from services.aggregator.registry_calls import Calls, failure_of, is_promised
from services.aggregator.stages import may_retry
from services.foundation.database import now, transaction
from services.foundation.objects import ObjectStore

log = structlog.get_logger(__name__)

# A call that the chain refuses again and again will not be taken: the next aggregator has its turn.
MAX_TRIES = 5
# So many times what the chain takes for an opening, a leader has to record what a quorum signed.
RECORDING = 5
REST_S = 10.0
# Why nothing can be done now; of a peer that shows something else than stands on chain too.
FAILURES = (UnavailableError, ServiceError, ProtocolError, VerificationError, EncodingError)

Fetched = TypeVar("Fetched")


class Takeovers:
    """Takes over the lead of witnessed federations; two of them may overlap.

    Args:
        calls: as this aggregator.
        peers: from whom missed rounds are fetched.
    """

    def __init__(self, engine: Engine, objects: ObjectStore, calls: Calls, peers: Sequence[Peer]) -> None:
        self._engine, self._calls, self._peers = engine, calls, peers
        self._own, self._missed = calls.signer.address, MissedRounds(engine, objects)
        self._rests: dict[str, float] = {}

    def run_once(self) -> int:
        """One pass. Returns the number of federations in which something was done."""
        with transaction(self._engine, read_only=True) as session:
            witnessed = session.scalars(select(Federation.id).where(Federation.state == WITNESSING)).all()
            overdue = [number for number in witnessed if self._overdue(session, number) is not None]
        return sum(self._go_on(number) for number in overdue if self._rests.get(number, 0.0) <= time.monotonic())

    def _overdue(self, session: Session, number: str) -> OnchainRound | None:
        """The newest attempt of a federation, if its leader has been silent for so long that it is this aggregator's turn."""
        chain, last = session.get(OnchainFederation, number), leads.newest(session, number)
        if chain is None or chain.closed_by is not None or last is None:
            return None
        federation = session.get_one(Federation, number)
        due = self._signed_due(session, federation, last) or leads.due_at(FederationConfig.parse(federation.config), last, self._own)
        return last if due is not None and attempts.is_over(due, now()) else None

    def _signed_due(self, session: Session, federation: Federation, last: OnchainRound) -> int | None:
        """From when on a result that a quorum signed is recorded from here: not by a deadline, but the leader comes first."""
        place = leads.turn(FederationConfig.parse(federation.config), last, self._own)
        result = None if last.survivors is None or last.model is not None else self._signed_result(session, federation, last)
        if place is None or result is None:
            return None
        signed = approvals.signed_at(session, federation, last.round, last.attempt)
        return int(signed.timestamp()) + place * RECORDING * attempts.opening_s(self._calls.registry)

    def _go_on(self, number: str) -> bool:
        try:
            with transaction(self._engine, read_only=True) as session:
                config, last = FederationConfig.parse(session.get_one(Federation, number).config), self._overdue(session, number)
            if last is None:
                return False
            if last.model is None and last.abandoned_transaction is None:
                return self._end(number, last)
            return self._lead(number, config, last)
        except FAILURES as error:
            self._rests[number] = time.monotonic() + REST_S
            log.warning("the lead can not be taken over yet", federation=number, reason=str(error), next_try_s=REST_S)
            return False

    def _end(self, number: str, last: OnchainRound) -> bool:
        """Have an attempt that its leader left behind finished with what a quorum signed, or given up."""
        with transaction(self._engine) as session:
            federation = session.get_one(Federation, number, with_for_update=True)
            if federation.state != WITNESSING:
                return False
            attempt = self._named(last)
            result = None if last.survivors is None else self._signed_result(session, federation, last)
            function = "abandon" if result is None else "finalise"
            if not self._may_promise(session, attempt, function):
                return False
            if result is None:
                self._calls.abandon(session, attempt)
            else:
                attempt.survivors = last.survivors
                self._calls.finalise(session, attempt, result, approvals.granted(session, federation, result))
        log.warning("an attempt was left behind", federation=number, round=last.round, attempt=last.attempt, leader=last.opened_by)
        return True

    def _named(self, last: OnchainRound) -> Attempt:
        """An attempt that another one led, as calls name it; it is nobody's row."""
        numbers = from_hex(last.federation_id), last.round, last.attempt
        registry = self._calls.registry
        ctx = secagg_context(registry.chain_id, registry.address, *numbers, from_hex(last.manifest_hash))
        return Attempt(federation_id=last.federation_id, round=last.round, number=last.attempt, ctx=to_hex(ctx), tries=0)

    def _may_promise(self, session: Session, attempt: Attempt, function: str) -> bool:
        """Whether a call is to be promised now; `attempt.tries` is that of the next one."""
        while is_promised(session, attempt, function):
            failure = failure_of(session, attempt, function)
            if failure is None or not may_retry(failure, attempt, now()) or attempt.tries + 1 >= MAX_TRIES:
                return False
            attempt.tries += 1
        return True

    def _signed_result(self, session: Session, federation: Federation, last: OnchainRound) -> RoundResult | None:
        """The result that a quorum signed, if this aggregator has its signatures."""
        quorum = FederationConfig.parse(federation.config).quorum
        given = approvals.of_attempt(session, federation.id, last.round, last.attempt, Kind.RESULT)
        statements = [approval.statement for approval in given if isinstance(approval.statement, RoundResult)]
        return next((each for each in statements if len(approvals.granted(session, federation, each)) >= quorum), None)

    def _lead(self, number: str, config: FederationConfig, last: OnchainRound) -> bool:
        """Open what is next, from the model that the chain names."""
        done, model = (last.round, last.model) if last.model is not None else (last.round - 1, last.base_model)
        following = (last.round + 1, 1) if last.model is not None else (last.round, last.attempt + 1)
        if done >= config.rounds or following[1] > MAX_ATTEMPTS:
            return False
        if stopping.asks_for_losses(config):
            metrics = self._from_any(lambda peer: self._missed.metrics([peer], number, done))
            if stopping.converged(config, metrics, done) is not None:
                return False
        self._from_any(lambda peer: self._missed.base([peer], config, number, after=done, record=model))
        with transaction(self._engine) as session:
            federation = session.get_one(Federation, number, with_for_update=True)
            # An attempt that another one's was opened in the place of, and that a reorganisation took off the chain, is left to the others.
            tried = session.get(Attempt, (number, *following)) is not None
            seen = leads.newest(session, number)
            moved_on = seen is None or (seen.round, seen.attempt) != (last.round, last.attempt)
            if federation.state != WITNESSING or moved_on or tried:
                return False
            federation.state, federation.reason, federation.model = "running", None, model
            attempts.begin(session, self._calls, federation, round_number=following[0], number=following[1])
        log.warning("taking over the lead", federation=number, round=following[0], attempt=following[1], leader=last.opened_by)
        return True

    def _from_any(self, fetch: Callable[[Peer], Fetched]) -> Fetched:
        """What the first peer gives that has it and tells the truth: one that lies keeps nobody from leading."""
        failure: Exception = UnavailableError("no other aggregator is named here")
        for peer in self._peers:
            try:
                return fetch(peer)
            except FAILURES as error:
                log.warning("a peer does not help to take over", peer=peer.address, reason=str(error))
                failure = error
        raise failure
