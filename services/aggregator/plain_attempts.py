"""The state machine of an attempt from its stored messages, with masks or without."""

from sqlalchemy.orm import Session

from rexis.encoding import from_hex
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.secagg_messages import Stage
from rexis.secagg.plain_coordinator import AnyCoordinator, PlainCoordinator
from rexis.secagg.survivors import FixedSurvivors
from services.aggregator import attempts
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt, Federation
from services.aggregator.registry_calls import Registry


def coordinator_of(session: Session, registry: Registry, federation: Federation, attempt: Attempt) -> AnyCoordinator:
    """The state machine of an attempt, with masks or without, rebuilt from its messages; raises as `attempts.coordinator_of`."""
    if FederationConfig.parse(federation.config).masked:
        return attempts.coordinator_of(session, registry, federation, attempt)
    phase = Phase(attempt.stage)
    if phase is Phase.OPENING or phase in ENDED:
        raise UnexpectedMessageError(f"attempt {attempt.number} of round {attempt.round} is {phase}: no message of it is taken")
    coordinator = PlainCoordinator(attempts.terms_of(registry, federation, attempt))
    for message in attempts.messages_of(session, attempt, Stage.MASKED):
        coordinator.receive(message)
    if phase.is_behind(Stage.MASKED):
        coordinator.close_masked()
    chain = attempts.onchain(session, attempt)
    if phase.is_behind(Phase.FIXING) and chain is not None and chain.survivors_hash is not None and chain.masked_record is not None:
        coordinator.close_survivors(fixed=FixedSurvivors(from_hex(chain.survivors_hash), from_hex(chain.masked_record)))
    return coordinator
