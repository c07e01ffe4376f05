"""The relay: signs the calls of the chain outbox, sends them, and follows them until they are final."""

from typing import Any

import structlog
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from web3 import Web3
from web3.exceptions import TransactionNotFound, Web3RPCError
from web3.types import BlockIdentifier, TxReceipt

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.chain.signer import Signer
from rexis.encoding import keccak256, to_hex
from rexis.errors import ChainError, ContractRevertedError, UnavailableError, WrongChainError
from services.foundation.database import now, transaction
from services.foundation.outbox.preflight import Call, check_funds, current_fees, gas_limit, reason_of_failure
from services.foundation.outbox.transactions import ChainAccount, ChainIntent, ChainPolicy, ChainTransaction

log = structlog.get_logger(__name__)

# Most calls signed in one pass, so that a pass stays short.
BATCH = 50
PLAIN_TRANSFER_GAS = 21_000


class Relay:
    """Signs and sends the calls of one service with its key, and follows them until they are final.

    Two relays of one service may overlap: nonces are taken under a row lock, and everything else can be repeated.
    """

    def __init__(self, engine: Engine, chain: Chain, signer: Signer, policy: ChainPolicy) -> None:
        self.engine, self.chain, self.signer, self.policy = engine, chain, signer, policy
        self.chain_id = chain.deployment.chain_id
        self._genesis = ""

    @property
    def _eth(self) -> Any:
        return self.chain.web3.eth

    def run_once(self) -> int:
        """One pass; it may be killed at any point. Returns how many calls are neither final nor failed.

        Raises:
            UnavailableError: the node does not answer, fees are above the ceiling, or the account has no funds; calls wait.
            WrongChainError: the chain was replaced by a new one.
        """
        try:
            self._check_genesis()
            self._recover()
            self._follow()
            self._sign_queued()
        except NODE_FAILURES as error:
            raise UnavailableError(f"the chain does not answer ({type(error).__name__}); calls wait in the database") from error
        with transaction(self.engine, read_only=True) as session:
            unsettled = select(func.count()).select_from(ChainIntent).where(ChainIntent.state.not_in(("final", "failed")))
            return session.scalars(unsettled).one()

    def _check_genesis(self) -> None:
        genesis = to_hex(self._eth.get_block(0)["hash"])
        with transaction(self.engine, read_only=True) as session:
            known = session.scalars(select(ChainAccount).where(ChainAccount.chain_id == self.chain_id)).first()
        if known is not None and known.genesis_hash != genesis:
            raise WrongChainError(
                f"chain {self.chain_id} had genesis {known.genesis_hash}, got {genesis}: it was replaced; "
                "give this service the database that belongs to the chain, or an empty one"
            )
        self._genesis = genesis

    def _recover(self) -> None:
        """Reopen what the chain has lost: an account's nonce never shrinks otherwise."""
        with transaction(self.engine, read_only=True) as session:
            mined = (ChainTransaction.chain_id == self.chain_id) & ChainTransaction.block_number.is_not(None)
            highest = select(ChainTransaction.sender, func.max(ChainTransaction.nonce)).where(mined).group_by(ChainTransaction.sender)
            accounts = session.execute(highest).all()
        for sender, highest_mined in accounts:
            # Asked after the rows were read: what they call mined is counted, unless it was lost.
            count = self._nonces_used(sender, "latest")
            if count <= highest_mined:
                self._reopen(sender, count, highest_mined)

    def _reopen(self, sender: str, first: int, last: int) -> None:
        fees = self._fees()
        with transaction(self.engine) as session:
            session.get(ChainAccount, (self.chain_id, sender), with_for_update=True)
            same = (ChainTransaction.chain_id == self.chain_id) & (ChainTransaction.sender == sender)
            lost = ChainTransaction.block_number.is_not(None) & ChainTransaction.nonce.between(first, last)
            if not self.policy.final_may_be_lost:
                lost &= ChainTransaction.final_at.is_(None)
            for row in session.scalars(select(ChainTransaction).where(same, lost).order_by(ChainTransaction.nonce)).all():
                log.warning("the chain lost a transaction; it is sent again", sender=sender, nonce=row.nonce, hash=row.hash)
                row.block_number = row.block_hash = row.mined_at = row.final_at = None
                intent = self._intent(session, row)
                if intent is not None and intent.transaction_hash == row.hash:
                    intent.block_number, intent.lost_once = None, True
                    intent.enter("submitted")
                elif intent is not None and sender == self.signer.address:
                    # The call was signed again since: at its old nonce, which has to be used up, it must not run a second time.
                    row.final_at = now()
                    empty = Call(sender=sender, to=sender, data=b"", gas=PLAIN_TRANSFER_GAS)
                    session.add(self._signed(empty, row.nonce, empty.gas, fees))

    def _follow(self) -> None:
        """Compare every open transaction with the chain, in the order of nonces: record it, send it again, or give it up."""
        settled = self._settled_number()
        with transaction(self.engine, read_only=True) as session:
            of_chain = (ChainTransaction.chain_id == self.chain_id) & ChainTransaction.final_at.is_(None)
            rows = session.scalars(select(ChainTransaction).where(of_chain).order_by(ChainTransaction.sender, ChainTransaction.nonce)).all()
        # Asked before any receipt: a nonce that is used up here while its transaction has no receipt was used by another one.
        used = {sender: self._nonces_used(sender, settled) for sender in {row.sender for row in rows}}
        for row in rows:
            receipt = self._receipt(row.hash)
            if receipt is not None:
                self._record(row, receipt, settled)
            elif row.nonce < used[row.sender]:
                self._give_up(row)
            else:
                self._send(row)

    def _nonces_used(self, sender: str, block: BlockIdentifier) -> int:
        return int(self._eth.get_transaction_count(Web3.to_checksum_address(sender), block))

    def _settled_number(self) -> int:
        if self.policy.confirmations is None:
            return int(self._eth.get_block("finalized")["number"])
        return max(0, int(self._eth.block_number) - self.policy.confirmations)

    def _receipt(self, transaction_hash: str) -> TxReceipt | None:
        try:
            receipt: TxReceipt = self._eth.get_transaction_receipt(transaction_hash)
        except TransactionNotFound:
            return None
        return receipt

    def _record(self, seen: ChainTransaction, receipt: TxReceipt, settled: int) -> None:
        block_hash, succeeded = to_hex(receipt["blockHash"]), receipt["status"] == 1
        error = None if succeeded or seen.block_hash == block_hash else self._failure(seen, int(receipt["blockNumber"]))
        with transaction(self.engine) as session:
            row = session.get_one(ChainTransaction, seen.hash, with_for_update=True)
            if row.final_at is not None:
                return
            intent = self._intent(session, row)
            current = intent if intent is not None and intent.transaction_hash == row.hash else None
            if row.block_hash != block_hash:
                row.block_number, row.block_hash, row.mined_at = int(receipt["blockNumber"]), block_hash, now()
                if current is not None:
                    current.block_number = row.block_number
                    current.enter("mined", error)
            waited = (now() - row.mined_at).total_seconds() if row.mined_at is not None else 0.0
            if row.block_number is None or row.block_number > settled or waited < self.policy.final_after_s:
                return
            row.final_at = now()
            if current is None:
                return
            if succeeded:
                current.enter("final")
            elif current.lost_once and current.attempts < self.policy.max_attempts:
                # It failed in a history where its turn came too early: from the intent, with a new nonce, not the same bytes.
                self._queue_again(current)
            else:
                current.enter("failed", current.error)

    def _give_up(self, seen: ChainTransaction) -> None:
        with transaction(self.engine) as session:
            row = session.get_one(ChainTransaction, seen.hash, with_for_update=True)
            if row.final_at is not None or row.block_hash != seen.block_hash:
                return
            row.block_number = row.block_hash = row.mined_at = None
            row.final_at = now()
            intent = self._intent(session, row)
            log.warning("a nonce was used by another transaction", sender=row.sender, nonce=row.nonce, hash=row.hash)
            if intent is not None and intent.transaction_hash == row.hash:
                self._queue_again(intent)

    def _queue_again(self, intent: ChainIntent) -> None:
        intent.transaction_hash = intent.block_number = None
        intent.enter("queued")

    def _failure(self, row: ChainTransaction, block_number: int) -> dict[str, Any]:
        with transaction(self.engine, read_only=True) as session:
            intent = None if row.intent_sequence is None else session.get(ChainIntent, row.intent_sequence)
        if intent is None:
            return {}
        call = Call(sender=row.sender, to=intent.to, data=intent.data, gas=intent.gas)
        return _document(reason_of_failure(self.chain.web3, call, block_number - 1))

    @staticmethod
    def _intent(session: Session, row: ChainTransaction) -> ChainIntent | None:
        return None if row.intent_sequence is None else session.get(ChainIntent, row.intent_sequence, with_for_update=True)

    def _send(self, row: ChainTransaction) -> None:
        if row.submitted_at is not None and self._known(row.hash):
            return
        try:
            self._eth.send_raw_transaction(row.raw)
        except Web3RPCError as error:
            # It is known already, or was mined this moment, or is refused for now: nodes have no common codes for these.
            # The next pass asks for the receipt, and sends the same bytes again if there is none.
            log.info("transaction not accepted", hash=row.hash, nonce=row.nonce, answer=error.message)
            if not self._known(row.hash):
                return
        with transaction(self.engine) as session:
            stored = session.get_one(ChainTransaction, row.hash, with_for_update=True)
            intent = self._intent(session, stored)
            if intent is not None and intent.transaction_hash == stored.hash:
                intent.lost_once |= stored.submitted_at is not None
                if intent.state == "signed":
                    intent.enter("submitted")
            stored.submitted_at = stored.submitted_at or now()

    def _known(self, transaction_hash: str) -> bool:
        try:
            self._eth.get_transaction(transaction_hash)
        except TransactionNotFound:
            return False
        return True

    def _sign_queued(self) -> None:
        with transaction(self.engine, read_only=True) as session:
            queued = session.scalars(
                select(ChainIntent).where(ChainIntent.state == "queued").order_by(ChainIntent.sequence).limit(BATCH)
            ).all()
        for intent in queued:
            call = Call(sender=self.signer.address, to=intent.to, data=intent.data, gas=intent.gas)
            try:
                gas = gas_limit(self.chain.web3, call)
            except ContractRevertedError as error:
                self._refused(intent, error)
                continue
            except ChainError as error:
                self._unfit(intent, error)
                continue
            fees = self._fees()
            check_funds(self.chain.web3, self.signer.address, gas, fees)
            signed = self._sign(intent, call, gas, fees)
            if signed is not None:
                self._send(signed)

    def _sign(self, seen: ChainIntent, call: Call, gas: int, fees: dict[str, int]) -> ChainTransaction | None:
        count = self._nonces_used(call.sender, "latest")
        with transaction(self.engine) as session:
            account = self._account(session)
            intent = session.get_one(ChainIntent, seen.sequence, with_for_update=True)
            if intent.state != "queued":
                return None
            # More than ours were mined if the key was used elsewhere: those nonces are gone.
            nonce = max(account.next_nonce, count)
            signed = self._signed(call, nonce, gas, fees)
            signed.intent_sequence = intent.sequence
            session.add(signed)
            account.next_nonce = nonce + 1
            intent.transaction_hash = signed.hash
            intent.attempts += 1
            intent.enter("signed")
            return signed

    def _account(self, session: Session) -> ChainAccount:
        identity = (self.chain_id, self.signer.address)
        account = session.get(ChainAccount, identity, with_for_update=True)
        if account is not None:
            return account
        try:
            with session.begin_nested():
                session.add(ChainAccount(chain_id=self.chain_id, address=self.signer.address, genesis_hash=self._genesis, next_nonce=0))
        except IntegrityError:
            log.info("another relay opened the account first", address=self.signer.address)
        return session.get_one(ChainAccount, identity, with_for_update=True)

    def _signed(self, call: Call, nonce: int, gas: int, fees: dict[str, int]) -> ChainTransaction:
        fields = {"chainId": self.chain_id, "nonce": nonce, "to": call.to, "value": 0, "data": call.data, "gas": gas, **fees}
        raw = self.signer.sign_transaction(fields)
        return ChainTransaction(hash=to_hex(keccak256(raw)), chain_id=self.chain_id, sender=call.sender, nonce=nonce, raw=raw)

    def _fees(self) -> dict[str, int]:
        return current_fees(
            self.chain.web3,
            max_fee_per_gas=self.policy.max_fee_per_gas,
            max_priority_fee_per_gas=self.policy.max_priority_fee_per_gas,
        )

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
            intent.enter("failed", _document(error))

    def _unfit(self, seen: ChainIntent, error: ChainError) -> None:
        with transaction(self.engine) as session:
            intent = session.get_one(ChainIntent, seen.sequence, with_for_update=True)
            if intent.state != "queued":
                return
            intent.attempts += 1
            if intent.attempts >= self.policy.max_attempts:
                intent.enter("failed", {"contract": "", "error": "Unfit", "arguments": {}, "detail": str(error)})


def _document(error: ContractRevertedError) -> dict[str, Any]:
    return {"contract": error.contract, "error": error.error, "arguments": error.arguments, "detail": str(error)}
