"""The job that carries federations: it takes every step that is due, each in a transaction of its own."""

import time

import structlog
from sqlalchemy import Engine, delete, select

from rexis.chain.signer import Signer
from rexis.chain.silence import ChainSilence
from services.aggregator import attempts, lifecycle, results, stages
from services.aggregator.models import Account, Federation
from services.aggregator.registry_calls import Calls, Registry
from services.foundation.database import now, transaction
from services.foundation.objects import ObjectStore

log = structlog.get_logger(__name__)

# A federation takes few steps before it has to wait for somebody; more in one pass would be a defect that keeps the others from running.
STEPS_AT_ONCE = 8
LONGEST_REST_S = 60.0


class Rounds:
    """Carries the federations of one aggregator; two of them may overlap.

    Args:
        signer: the aggregator's key.
        silence: looked at by whoever owns it.
    """

    def __init__(self, engine: Engine, objects: ObjectStore, registry: Registry, signer: Signer, silence: ChainSilence) -> None:
        self._engine, self._objects = engine, objects
        self._calls = Calls(registry, signer, silence)
        self._introduced = False
        self._failures: dict[str, tuple[int, float]] = {}

    def run_once(self) -> int:
        """One pass. Returns the number of steps that were taken. A federation that fails rests for a while, and the others go on."""
        if not self._introduced:
            self._introduce()
        with transaction(self._engine, read_only=True) as session:
            query = select(Federation.id).where(Federation.state.in_(lifecycle.ACTIVE)).order_by(Federation.created_at, Federation.id)
            active = session.scalars(query).all()
        taken = 0
        for federation_id in active:
            count, rests_until = self._failures.get(federation_id, (0, 0.0))
            if time.monotonic() < rests_until:
                continue
            try:
                taken += self._carry(federation_id)
                self._failures.pop(federation_id, None)
            except Exception:
                pause = min(2.0**count, LONGEST_REST_S)
                self._failures[federation_id] = count + 1, time.monotonic() + pause
                log.exception("a federation could not go on", federation=federation_id, next_try_s=pause)
        return taken

    def _carry(self, federation_id: str) -> int:
        for taken in range(STEPS_AT_ONCE):
            if not self._step(federation_id):
                return taken
        return STEPS_AT_ONCE

    def _step(self, federation_id: str) -> bool:
        """Take one step, if one is due. It is looked for without a lock, so that waiting costs nothing, and decided again with it."""
        instant = now()
        with transaction(self._engine, read_only=True) as session:
            federation = session.get_one(Federation, federation_id)
            attempt = attempts.latest(session, federation)
            answered = attempt is not None and stages.is_answered(session, federation, attempt, instant)
            due = lifecycle.next_step(session, self._calls, federation, instant) is not None
        if due:
            with transaction(self._engine) as session:
                federation = session.get_one(Federation, federation_id, with_for_update=True)
                # Who hands in a message holds the attempt: a stage is not closed while a message of it is being taken.
                attempts.latest(session, federation, for_update=True)
                step = lifecycle.next_step(session, self._calls, federation, instant)
                if step is not None:
                    step()
            return True
        if answered:
            results.open_sum(self._engine, self._objects, self._calls, federation_id)
        return answered

    def _introduce(self) -> None:
        """Tell the API, which has no key, under which address federations name this aggregator."""
        address = self._calls.signer.address
        with transaction(self._engine) as session:
            session.execute(delete(Account).where(Account.address != address))
            session.merge(Account(address=address))
        self._introduced = True
