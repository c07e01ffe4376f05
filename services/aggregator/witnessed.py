"""Federations that another aggregator leads, as a witness keeps them: taken on by their id, and followed on chain until they end."""

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from rexis.client.aggregator import WorkItem
from rexis.encoding import from_hex, to_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from services.aggregator import foundings, history, leads, stopping
from services.aggregator.attempts import MAX_ATTEMPTS
from services.aggregator.leads import WITNESSING
from services.aggregator.models import Federation, OnchainFederation, OnchainRound
from services.aggregator.peers import Peer
from services.aggregator.registry_calls import Registry
from services.foundation.database import lock, now, transaction

log = structlog.get_logger(__name__)


def adopt(engine: Engine, registry: Registry, own: str, peer: Peer, item: WorkItem) -> bool:
    """Whether this is a federation to witness in; one that is new is looked at, and kept.

    Args:
        own: this aggregator's address.
        peer: who leads it.
        item: an attempt that it shows.

    Raises:
        UnexpectedMessageError, ProtocolError, MalformedMessageError: the leader shows another federation's config, or one that this
            aggregator would not lead either.
    """
    number = to_hex(item.federation)
    with transaction(engine, read_only=True) as session:
        known = session.get(Federation, number)
        chain = session.get(OnchainRound, (number, item.round, item.attempt))
        # The index may be behind; and nothing is fetched about what does not stand on chain.
        if chain is None or session.get(OnchainFederation, number) is None:
            return False
    if known is not None:
        return known.state == WITNESSING
    config = peer.aggregator.federation(item.federation).config
    if config.id(registry.chain_id, registry.address) != item.federation:
        raise UnexpectedMessageError(f"expected the config of federation {number}, got another's")
    # What this aggregator would not lead it does not witness either: sizes are bounded before anything is fetched.
    foundings.check_config(config, caller=config.founder, aggregator=own)
    foundings.check_aggregators(config, peer.address)
    with transaction(engine) as session:
        lock(session, f"federation {number}")
        if session.get(Federation, number) is None:
            taken_on = foundings.found(session, config, number, model=from_hex(chain.base_model), intent_key="", state=WITNESSING)
            taken_on.leader = peer.address
            for member in taken_on.members:
                # A round is opened when all have joined.
                member.joined_at = now()
    log.info("witnessing a federation", federation=number, leader=peer.address)
    return True


def settle(engine: Engine) -> dict[str, int]:
    """Take over from the chain how far the witnessed federations are, and which ended.

    Returns:
        Those of which this can not be told, because metrics are missing here, with the number of their rounds.
    """
    with transaction(engine, read_only=True) as session:
        witnessed = session.scalars(select(Federation.id).where(Federation.state == WITNESSING)).all()
        changed = [number for number in witnessed if _ended(session, number) is not None or _moved(session, number)]
        unknown = {number: rounds for number in witnessed if (rounds := _unknown_rounds(session, number))}
    for number in changed:
        with transaction(engine) as session:
            federation = session.get_one(Federation, number, with_for_update=True)
            if federation.state != WITNESSING:
                continue
            last, newest, ended = _final(session, number), leads.newest(session, number), _ended(session, number)
            if newest is not None:
                federation.leader = newest.opened_by or federation.leader
            if last is not None and last.model is not None:
                federation.round, federation.model = last.round, last.model
            if ended is not None:
                federation.state, federation.reason = ended
    return unknown


def _final(session: Session, number: str) -> OnchainRound | None:
    query = select(OnchainRound).where(OnchainRound.federation_id == number, OnchainRound.model.is_not(None))
    return session.scalar(query.order_by(OnchainRound.round.desc()).limit(1))


def _moved(session: Session, number: str) -> bool:
    """Whether the chain has another model or leader than this side's row."""
    federation, last, newest = session.get_one(Federation, number), _final(session, number), leads.newest(session, number)
    led = newest is not None and newest.opened_by not in (None, federation.leader)
    return led or (last is not None and last.model != federation.model)


def _unknown_rounds(session: Session, number: str) -> int:
    """How many rounds are final, if their losses decide whether the federation is over and are not all here; 0 otherwise."""
    federation, last = session.get_one(Federation, number), _final(session, number)
    if last is None or not stopping.asks_for_losses(FederationConfig.parse(federation.config)):
        return 0
    return last.round if len(history.metrics(session, number)) < last.round else 0


def _ended(session: Session, number: str) -> tuple[str, str | None] | None:
    """State and reason of a federation that is over, by the chain."""
    federation, last, newest = session.get_one(Federation, number), _final(session, number), leads.newest(session, number)
    chain = session.get(OnchainFederation, number)
    if last is not None and last.round >= federation.rounds_total:
        return "finished", None
    if last is not None and not _unknown_rounds(session, number):
        reason = stopping.converged(FederationConfig.parse(federation.config), history.metrics(session, number), last.round)
        if reason is not None:
            return "finished", reason
    said = f"; {federation.reason}" if federation.reason else ""
    if chain is not None and chain.closed_by is not None:
        return "failed", f"{chain.closed_by} closed it on chain{said}"
    if newest is not None and newest.abandoned_transaction is not None and newest.attempt >= MAX_ATTEMPTS:
        return "failed", f"round {newest.round} was abandoned {newest.attempt} times{said}"
    return None
