"""The relay: signs the calls of the chain outbox, sends them, and sees to it that they become final."""

import structlog
from sqlalchemy import Engine, func, select

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.chain.signer import Signer
from rexis.errors import ChainError, ContractRevertedError, UnavailableError
from services.foundation.database import now, transaction
from services.foundation.outbox.account import Account
from services.foundation.outbox.fees import Fees, quote
from services.foundation.outbox.following import Following, failure_document
from services.foundation.outbox.policies import ChainPolicy
from services.foundation.outbox.preflight import Call, check_funds, gas_limit
from services.foundation.outbox.replacement import Replacement
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction

log = structlog.get_logger(__name__)

# Most calls signed in one pass, so that a pass stays short.
BATCH = 50


class Relay:
    """Signs and sends the calls of one service with its key, and follows them until they are final.

    Two relays of one service may overlap: nonces are taken under a row lock, and everything else can be repeated.
    """

    def __init__(self, engine: Engine, chain: Chain, signer: Signer, policy: ChainPolicy) -> None:
        self.engine, self.chain, self.policy = engine, chain, policy
        self.account = Account(engine, chain, signer)
        self.following = Following(self.account, policy)
        self.replacement = Replacement(self.account, self.following, policy)

    def run_once(self) -> int:
        """One pass; it may be killed at any point. Returns how many calls are neither final nor failed.

        Raises:
            UnavailableError: the node does not answer, fees are above the ceiling, or the account has no funds; calls wait.
            WrongChainError: the chain was replaced by a new one.
        """
        try:
            self.account.check_genesis()
            self.following.recover()
            self.replacement.run(self.following.follow())
            self._sign_queued()
        except NODE_FAILURES as error:
            raise UnavailableError(f"the chain does not answer ({type(error).__name__}); calls wait in the database") from error
        with transaction(self.engine, read_only=True) as session:
            unsettled = select(func.count()).select_from(ChainIntent).where(ChainIntent.state.not_in(("final", "failed")))
            return session.scalars(unsettled).one()

    def _sign_queued(self) -> None:
        with transaction(self.engine, read_only=True) as session:
            queued = session.scalars(
                select(ChainIntent).where(ChainIntent.state == "queued").order_by(ChainIntent.sequence).limit(BATCH)
            ).all()
        web3, oracle = self.chain.web3, self.policy.data_fee_oracle
        # Asked once a pass, and only if something is signed.
        fees, used = None, 0
        for intent in queued:
            if not self._still_queued(intent):
                continue
            ceiling = intent.gas * self.policy.gas_allowance
            call = Call(sender=self.account.address, to=intent.to, data=intent.data, gas=ceiling)
            try:
                gas = gas_limit(web3, call)
            except ContractRevertedError as error:
                self._refused(intent, error)
                continue
            except ChainError as error:
                self._unfit(intent, error)
                continue
            if fees is None:
                fees, used = quote(web3, self.policy).offer(), self.account.nonces_used(self.account.address)
            call = call.limited(gas)
            check_funds(web3, call.sender, gas, fees, oracle=oracle, data=self.account.unsigned(call, fees))
            signed = self._sign(intent, call, fees, used)
            if signed is not None:
                self.following.send(signed)

    def _still_queued(self, seen: ChainIntent) -> bool:
        """Another relay may have taken it meanwhile: a look at the row is cheaper than what the node would be asked in vain."""
        with transaction(self.engine, read_only=True) as session:
            return session.get_one(ChainIntent, seen.sequence).state == "queued"

    def _sign(self, seen: ChainIntent, call: Call, fees: Fees, used: int) -> ChainTransaction | None:
        with transaction(self.engine) as session:
            account = self.account.lock(session)
            intent = session.get_one(ChainIntent, seen.sequence, with_for_update=True)
            if intent.state != "queued":
                return None
            # More than ours were mined if the key was used elsewhere: those nonces are gone. One that goes later costs a new signature.
            nonce = max(account.next_nonce, used)
            signed = self.account.sign(call, nonce, fees)
            signed.intent_sequence = intent.sequence
            session.add(signed)
            account.next_nonce = nonce + 1
            intent.transaction_hash = signed.hash
            intent.attempts += 1
            intent.enter("signed")
            return signed

    def _refused(self, seen: ChainIntent, error: ContractRevertedError) -> None:
        """A refusal counts once nothing before it is under way, on which the call may depend."""
        with transaction(self.engine) as session:
            intent = session.get_one(ChainIntent, seen.sequence, with_for_update=True)
            waits = (ChainIntent.sequence < intent.sequence) & ChainIntent.state.in_(("signed", "submitted"))
            if intent.state != "queued" or session.scalars(select(ChainIntent.sequence).where(waits).limit(1)).first() is not None:
                return
            if intent.lost_once and (now() - intent.state_since).total_seconds() < self.policy.settle_s:
                return
            log.info("call refused", label=intent.label, intent=str(intent.id), error=str(error))
            intent.enter("failed", failure_document(error))

    def _unfit(self, seen: ChainIntent, error: ChainError) -> None:
        with transaction(self.engine) as session:
            intent = session.get_one(ChainIntent, seen.sequence, with_for_update=True)
            if intent.state != "queued":
                return
            intent.attempts += 1
            if intent.attempts >= self.policy.max_attempts:
                intent.enter("failed", {"contract": "", "error": "Unfit", "arguments": {}, "detail": str(error)})
