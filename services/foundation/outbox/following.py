"""Following what was sent: every nonce is compared with the chain, recorded, sent again, or given up.

All that was signed with a nonce is looked at together: whichever the chain has is the one, and a nonce that the chain used without
any of them is lost to its call. A node is asked nothing about old states, which pruned ones do not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from web3.exceptions import BlockNotFound, TransactionNotFound, Web3RPCError
from web3.types import TxReceipt

from rexis.encoding import to_hex
from rexis.errors import ContractRevertedError, UnavailableError
from services.foundation.database import now, transaction
from services.foundation.outbox.account import Account
from services.foundation.outbox.fees import Signed, quote
from services.foundation.outbox.policies import ChainPolicy
from services.foundation.outbox.preflight import Call, reason_of_failure
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction, at_nonce

log = structlog.get_logger(__name__)

LADDER = ("queued", "signed", "submitted", "mined", "confirmed", "final")


@dataclass(frozen=True)
class Slot:
    """One nonce of an account.

    Attributes:
        transactions: what may still be mined with it, dearest first.
        is_next: the chain uses this nonce next; those above it wait for it.
    """

    sender: str
    nonce: int
    transactions: Sequence[ChainTransaction]
    is_next: bool = False


@dataclass(frozen=True)
class _Heights:
    """Numbers of the newest block, and of the newest that are confirmed and final; hash of the newest."""

    head: int
    head_hash: str
    confirmed: int
    final: int


class Following:
    """Moves the calls of one service along the ladder of states, up and down."""

    def __init__(self, account: Account, policy: ChainPolicy) -> None:
        self.account, self.policy, self.engine, self.chain_id = account, policy, account.engine, account.chain_id
        # Nonces that something unknown has used: the newest block when that was first seen, and the time.
        self._unexplained: dict[tuple[str, int], tuple[int, str, float]] = {}

    def recover(self) -> None:
        """Reopen what the chain has lost: an account's nonce never shrinks otherwise."""
        with transaction(self.engine, read_only=True) as session:
            mined = (ChainTransaction.chain_id == self.chain_id) & ChainTransaction.block_number.is_not(None)
            highest = select(ChainTransaction.sender, func.max(ChainTransaction.nonce)).where(mined).group_by(ChainTransaction.sender)
            accounts = session.execute(highest).all()
        for sender, highest_mined in accounts:
            # Asked after the rows were read: what they call mined is counted, unless it was lost.
            count = self.account.nonces_used(sender)
            if count <= highest_mined:
                self._reopen(sender, count, highest_mined)

    def _reopen(self, sender: str, first: int, last: int) -> None:
        asked = quote(self.account.chain.web3, self.policy).offer()
        with transaction(self.engine) as session:
            self.account.lock(session)
            same = (ChainTransaction.chain_id == self.chain_id) & (ChainTransaction.sender == sender)
            lost = ChainTransaction.block_number.is_not(None) & ChainTransaction.nonce.between(first, last)
            if not self.policy.final_may_be_lost:
                lost &= ChainTransaction.final_at.is_(None)
            for row in session.scalars(select(ChainTransaction).where(same, lost).order_by(ChainTransaction.nonce)).all():
                log.warning("the chain lost a transaction; it is sent again", sender=sender, nonce=row.nonce, hash=row.hash)
                rows = at_nonce(session, self.chain_id, sender, row.nonce)
                intent = _intent_of(session, row)
                row.block_number = row.block_hash = row.mined_at = None
                if intent is None:
                    row.final_at = None
                elif intent.transaction_hash in rows:
                    for signed in rows.values():
                        if signed.intent_sequence == row.intent_sequence:
                            signed.final_at = None
                    intent.block_number, intent.lost_once = None, True
                    intent.enter("submitted")
                else:
                    # The call was signed again since: at its old nonce, which has to be used up, it must not run a second time.
                    row.final_at = now()
                    if sender == self.account.address:
                        offers = [Signed.parse(signed.raw).fees for signed in rows.values()]
                        dearest = max(offers, key=lambda offer: offer.most)
                        session.add(self.account.sign(self.account.empty_call(), row.nonce, dearest.raised(asked)))

    def follow(self) -> list[Slot]:
        """Compare every open nonce with the chain, lowest first. Returns those that wait for a block; what they have was sent."""
        slots, waiting = self._open(), []
        if not slots:
            return []
        # Asked before any receipt: a nonce that is used up here while nothing of it has a receipt was used by something else.
        used = {sender: self.account.nonces_used(sender) for sender in {slot.sender for slot in slots}}
        heights = self._heights()
        for slot in slots:
            if slot.nonce >= used[slot.sender]:
                self._unexplained.pop((slot.sender, slot.nonce), None)
                # What was in a block a moment ago is reopened by the next pass.
                if all(row.block_number is None for row in slot.transactions):
                    self._send_one(slot)
                    waiting.append(replace(slot, is_next=slot.nonce == used[slot.sender]))
                continue
            found = self._mined(slot)
            if found is not None:
                self._unexplained.pop((slot.sender, slot.nonce), None)
                self._record(slot, *found, heights)
            elif self._is_settled_without(slot, heights):
                self._give_up(slot)
        return waiting

    def _open(self) -> list[Slot]:
        with transaction(self.engine, read_only=True) as session:
            of_chain = (ChainTransaction.chain_id == self.chain_id) & ChainTransaction.final_at.is_(None)
            rows = session.scalars(select(ChainTransaction).where(of_chain).order_by(ChainTransaction.sender, ChainTransaction.nonce)).all()
        grouped = groupby(rows, key=lambda row: (row.sender, row.nonce))
        return [Slot(sender, nonce, _dearest_first(list(same))) for (sender, nonce), same in grouped]

    def _heights(self) -> _Heights:
        head: Any = self.account.eth.get_block("latest")
        number, finality = int(head["number"]), self.policy.finality
        confirmed = number - self.policy.confirmations
        if isinstance(finality, int):
            final = number - finality
        else:
            try:
                final = int(self.account.eth.get_block(finality)["number"])
            except BlockNotFound as error:
                raise UnavailableError(
                    f"the node knows no block as {finality}: it is not in step yet, or REXIS_CHAIN_POLICY is not the one of this chain; "
                    "calls wait"
                ) from error
        return _Heights(number, to_hex(head["hash"]), max(0, confirmed), max(0, min(final, confirmed)))

    def _mined(self, slot: Slot) -> tuple[ChainTransaction, TxReceipt] | None:
        for row in slot.transactions:
            try:
                return row, self.account.eth.get_transaction_receipt(row.hash)
            except TransactionNotFound:
                continue
        return None

    def _record(self, slot: Slot, seen: ChainTransaction, receipt: TxReceipt, heights: _Heights) -> None:
        number, block_hash, succeeded = int(receipt["blockNumber"]), to_hex(receipt["blockHash"]), receipt["status"] == 1
        failure = None if succeeded or seen.block_hash == block_hash else self._failure(seen, number)
        with transaction(self.engine) as session:
            rows = at_nonce(session, self.chain_id, slot.sender, slot.nonce)
            row = rows[seen.hash]
            if row.final_at is not None:
                return
            held = _intent_of(session, row)
            intent = held if held is not None and held.transaction_hash in rows else None
            moved = row.block_hash != block_hash
            if moved:
                row.block_number, row.block_hash, row.mined_at = number, block_hash, now()
                self._displace(rows, row, intent)
            level = self._level(row, heights)
            if level == "final":
                for signed in rows.values():
                    signed.final_at = signed.final_at or now()
            if intent is None:
                return
            error = failure if moved else intent.error
            if level == "final" and not succeeded:
                self._end_failed(intent, error)
            elif moved or LADDER.index(level) > LADDER.index(intent.state):
                intent.enter(level, error)

    def _displace(self, rows: dict[str, ChainTransaction], mined: ChainTransaction, intent: ChainIntent | None) -> None:
        """Of what has one nonce, only one is in a block, and it is the call's."""
        for other in rows.values():
            if other is not mined and other.block_number is not None:
                log.warning("the chain took another transaction of a nonce", nonce=mined.nonce, before=other.hash, hash=mined.hash)
                other.block_number = other.block_hash = other.mined_at = None
                if intent is not None:
                    intent.lost_once = True
        if intent is not None:
            intent.transaction_hash, intent.block_number = mined.hash, mined.block_number

    def _level(self, row: ChainTransaction, heights: _Heights) -> str:
        if row.block_number is None or row.mined_at is None or row.block_number > heights.confirmed:
            return "mined"
        waited = (now() - row.mined_at).total_seconds()
        return "confirmed" if row.block_number > heights.final or waited < self.policy.final_after_s else "final"

    def _end_failed(self, intent: ChainIntent, error: dict[str, Any] | None) -> None:
        if intent.lost_once and intent.attempts < self.policy.max_attempts:
            # It failed in a history where its turn came too early: from the intent, with a new nonce, not the same bytes.
            _queue_again(intent)
        else:
            intent.enter("failed", error)

    def _failure(self, row: ChainTransaction, block_number: int) -> dict[str, Any]:
        with transaction(self.engine, read_only=True) as session:
            intent = None if row.intent_sequence is None else session.get(ChainIntent, row.intent_sequence)
        if intent is None:
            return {}
        call = Call(sender=row.sender, to=intent.to, data=intent.data, gas=Signed.parse(row.raw).gas)
        return failure_document(reason_of_failure(self.account.chain.web3, call, block_number - 1))

    def _is_settled_without(self, slot: Slot, heights: _Heights) -> bool:
        """Whether the nonce is used up for good by something else: the chain of when that was first seen is final now."""
        key = slot.sender, slot.nonce
        number, block_hash, since = self._unexplained.setdefault(key, (heights.head, heights.head_hash, monotonic()))
        if number > heights.final or monotonic() - since < self.policy.doubt_s:
            return False
        try:
            if to_hex(self.account.eth.get_block(number)["hash"]) == block_hash:
                return True
        except BlockNotFound:
            log.info("the chain became shorter", block=number)
        del self._unexplained[key]
        return False

    def _give_up(self, slot: Slot) -> None:
        seen = {row.hash: row.block_hash for row in slot.transactions}
        with transaction(self.engine) as session:
            rows = at_nonce(session, self.chain_id, slot.sender, slot.nonce)
            left = {row.hash: row.block_hash for row in rows.values() if row.final_at is None}
            if left != seen:
                return
            log.warning("a nonce was used by another transaction", sender=slot.sender, nonce=slot.nonce, hashes=sorted(left))
            for each in left:
                row = rows[each]
                row.block_number = row.block_hash = row.mined_at = None
                row.final_at = now()
                intent = _intent_of(session, row)
                if intent is not None and intent.transaction_hash in left:
                    _queue_again(intent)
        self._unexplained.pop((slot.sender, slot.nonce), None)

    def _send_one(self, slot: Slot) -> None:
        """One of a nonce is enough in the node: the dearest that it takes."""
        for row in slot.transactions:
            if self.send(row):
                return

    def send(self, row: ChainTransaction) -> bool:
        """Send signed bytes, again if the node does not know them any more; returns whether it has them."""
        if row.submitted_at is not None and self._known(row.hash):
            return True
        try:
            self.account.eth.send_raw_transaction(row.raw)
        except Web3RPCError as error:
            # It is known already, or was mined this moment, or pays too little beside another one of its nonce, or is refused for now:
            # nodes have no common codes for these. The next pass asks for the receipt, and sends the same bytes again if there is none.
            log.info("transaction not accepted", hash=row.hash, nonce=row.nonce, answer=error.message)
            if not self._known(row.hash):
                return False
        with transaction(self.engine) as session:
            stored = at_nonce(session, self.chain_id, row.sender, row.nonce)
            intent = _intent_of(session, stored[row.hash])
            if intent is not None and intent.transaction_hash in stored:
                intent.lost_once |= stored[row.hash].submitted_at is not None
                if intent.state == "signed":
                    intent.enter("submitted")
            stored[row.hash].submitted_at = stored[row.hash].submitted_at or now()
        return True

    def _known(self, transaction_hash: str) -> bool:
        try:
            self.account.eth.get_transaction(transaction_hash)
        except TransactionNotFound:
            return False
        return True


def failure_document(error: ContractRevertedError) -> dict[str, Any]:
    """Why a call failed, as its row keeps it."""
    return {"contract": error.contract, "error": error.error, "arguments": error.arguments, "detail": str(error)}


def _dearest_first(rows: list[ChainTransaction]) -> list[ChainTransaction]:
    return sorted(rows, key=lambda row: Signed.parse(row.raw).fees.most, reverse=True) if len(rows) > 1 else rows


def _intent_of(session: Session, row: ChainTransaction) -> ChainIntent | None:
    return None if row.intent_sequence is None else session.get(ChainIntent, row.intent_sequence, with_for_update=True)


def _queue_again(intent: ChainIntent) -> None:
    intent.transaction_hash = intent.block_number = None
    intent.enter("queued")
