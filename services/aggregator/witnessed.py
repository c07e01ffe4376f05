"""Federations that another aggregator leads, as a witness keeps them: taken on by their id, and followed on chain until they end."""

import structlog
from sqlalchemy import Engine, select

from rexis.client.aggregator import WorkItem
from rexis.encoding import from_hex, to_hex
from rexis.errors import UnexpectedMessageError
from services.aggregator import foundings
from services.aggregator.models import Federation, OnchainFederation, OnchainRound
from services.aggregator.peers import Peer
from services.aggregator.registry_calls import Registry
from services.foundation.database import lock, transaction

log = structlog.get_logger(__name__)

WITNESSING = "witnessing"


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
            foundings.found(session, config, number, model=from_hex(chain.base_model), intent_key="", state=WITNESSING)
    log.info("witnessing a federation", federation=number, leader=peer.address)
    return True


def settle(engine: Engine) -> None:
    """Take over from the chain how far the witnessed federations are, and which ended."""
    with transaction(engine, read_only=True) as session:
        witnessed = session.scalars(select(Federation.id).where(Federation.state == WITNESSING)).all()
    for number in witnessed:
        with transaction(engine, read_only=True) as session:
            query = select(OnchainRound).where(OnchainRound.federation_id == number, OnchainRound.model.is_not(None))
            last = session.scalar(query.order_by(OnchainRound.round.desc()).limit(1))
            chain = session.get(OnchainFederation, number)
            federation = session.get_one(Federation, number)
        done = last is not None and last.round >= federation.rounds_total
        closed = chain is not None and chain.closed_by is not None
        if (last is None or last.model == federation.model) and not done and not closed:
            continue
        with transaction(engine) as session:
            federation = session.get_one(Federation, number, with_for_update=True)
            if last is not None and last.model is not None:
                federation.round, federation.model = last.round, last.model
            if done:
                federation.state, federation.reason = "finished", None
            elif closed and chain is not None:
                federation.state = "failed"
                federation.reason = f"{chain.closed_by} closed it on chain" + (f"; {federation.reason}" if federation.reason else "")
