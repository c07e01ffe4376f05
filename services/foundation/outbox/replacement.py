"""Transactions that wait too long are signed again: the same call at the same nonce, with higher fees."""

from collections.abc import Sequence

import structlog
from web3 import Web3

from rexis.errors import UnavailableError
from services.foundation.database import now, transaction
from services.foundation.outbox.account import Account
from services.foundation.outbox.fees import Fees, Quote, Signed, payload, quote
from services.foundation.outbox.following import Following, Slot
from services.foundation.outbox.policies import ChainPolicy
from services.foundation.outbox.preflight import Call, check_funds
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction, at_nonce

log = structlog.get_logger(__name__)


class Replacement:
    """Raises the offer of what has been waiting for longer than the policy's patience.

    It is raised if the chain asks for more than it pays, or if its turn has come and blocks pass without it. All transactions of a
    nonce are kept, since any of them may be mined; the lowest nonce goes first, since the others wait for it.
    """

    def __init__(self, account: Account, following: Following, policy: ChainPolicy) -> None:
        self.account, self.following, self.policy = account, following, policy

    def run(self, waiting: Sequence[Slot]) -> None:
        """Replace what is overdue of the nonces that wait for a block, lowest first.

        Raises:
            UnavailableError: the chain asks for more than the ceiling, or than the account has.
        """
        overdue = [slot for slot in waiting if slot.sender == self.account.address and self._waited(slot) >= self.policy.patience_s]
        if not overdue:
            return
        asked = quote(self.account.chain.web3, self.policy)
        for slot in overdue:
            fees = self._better(slot, asked)
            if fees is not None:
                self._replace(slot, fees)

    def _waited(self, slot: Slot) -> float:
        return (now() - slot.transactions[0].signed_at).total_seconds()

    def _better(self, slot: Slot, asked: Quote) -> Fees | None:
        """What to offer instead; None if there is nothing to win by it."""
        dearest = slot.transactions[0]
        offered = Signed.parse(dearest.raw).fees
        covered = asked.covered_by(offered)
        passed_over = slot.is_next and asked.block_time - dearest.signed_at.timestamp() >= self.policy.patience_s
        if (covered and not passed_over) or asked.needed == 0:
            return None
        raised = offered.raised(asked.offer())
        if raised.most <= self.policy.max_fee_per_gas:
            return raised
        known = {"nonce": slot.nonce, "offered": offered.most, "needed": raised.most, "ceiling": self.policy.max_fee_per_gas}
        if covered:
            log.warning("a transaction waits, and its offer can not be raised", **known)
            return None
        raise UnavailableError(
            f"the transaction with nonce {slot.nonce} offers {offered.most} wei per gas, the chain asks for {asked.needed}, and another "
            f"offer has to be {raised.most}, which is above the ceiling of {self.policy.max_fee_per_gas}; calls wait until the chain asks "
            "for less, or until REXIS_MAX_FEE_GWEI is raised"
        )

    def _replace(self, slot: Slot, fees: Fees) -> None:
        dearest = slot.transactions[0]
        signed = Signed.parse(dearest.raw)
        call = Call(sender=slot.sender, to=Web3.to_checksum_address(signed.to), data=signed.data, gas=signed.gas)
        data = payload(self.account.chain_id, call.to, call.data, call.gas, fees)
        oracle = self.policy.data_fee_oracle
        # What it replaces is not paid for as well.
        check_funds(self.account.chain.web3, slot.sender, call.gas, fees, oracle=oracle, data=data, block="latest")
        stored = self._store(slot, call, fees)
        if stored is not None:
            log.info("a transaction is replaced", nonce=slot.nonce, before=dearest.hash, hash=stored.hash, **fees.fields())
            self.following.send(stored)

    def _store(self, slot: Slot, call: Call, fees: Fees) -> ChainTransaction | None:
        with transaction(self.account.engine) as session:
            self.account.lock(session)
            rows = at_nonce(session, self.account.chain_id, slot.sender, slot.nonce)
            left = {row.hash for row in rows.values() if row.final_at is None and row.block_number is None}
            if left != {row.hash for row in slot.transactions}:
                return None  # another relay was faster, or one of them was mined
            stored = self.account.sign(call, slot.nonce, fees)
            stored.intent_sequence = rows[slot.transactions[0].hash].intent_sequence
            session.add(stored)
            if stored.intent_sequence is not None:
                session.get_one(ChainIntent, stored.intent_sequence, with_for_update=True).transaction_hash = stored.hash
            return stored
