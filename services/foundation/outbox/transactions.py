"""The chain outbox: a call is a row in the transaction that made it necessary; a relay signs, sends and follows it.

    queued ──sign──> signed ──send──> submitted ──receipt──> mined ──blocks on top──> confirmed ──finality──> final
       │                                                                                └─────(status 0)──> failed
       └──the contract refuses it before it is signed─────────────────────────────────────────────────────> failed

Nothing is lost and nothing runs twice, whichever process is killed when: the signed bytes are stored, with their nonce, before
they are sent, so that sending them again is the same transaction; only a call whose nonce was used up without it is signed again
with another one. What pays too little to be mined is signed again with the same nonce and higher fees: a nonce is used once, so one
of its transactions takes effect, and the call follows whichever it was. Mined may be undone, confirmed is likely to stay, final stays.
States follow the chain, also backwards: what a reorganisation or a restarted local chain lost is sent again.
`services.foundation.outbox.relay` does the signing, sending and following.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Uuid, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from rexis.encoding import checksum_address
from rexis.errors import UnexpectedMessageError
from services.foundation.database import FoundationBase, Instant, now


class ChainAccount(FoundationBase):
    """The next nonce of a key of this service; its row is locked while a nonce is taken."""

    __tablename__ = "chain_account"

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    address: Mapped[str] = mapped_column(String(42), primary_key=True)
    genesis_hash: Mapped[str] = mapped_column(String(66))
    next_nonce: Mapped[int] = mapped_column(BigInteger)


class ChainIntent(FoundationBase):
    """A call that this service has promised to make once.

    `transaction_hash`: what was mined for it, or else what was signed last. `attempts`: nonces that were taken for it.
    `lost_once`: the chain accepted it and forgot it later, so that it may meet another order of things than it was signed for.
    """

    __tablename__ = "chain_intent"

    sequence: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    id: Mapped[uuid.UUID] = mapped_column(Uuid, unique=True, default=uuid.uuid4)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    label: Mapped[str] = mapped_column(String(100))
    to: Mapped[str] = mapped_column(String(42))
    data: Mapped[bytes] = mapped_column(LargeBinary)
    gas: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    state_since: Mapped[datetime] = mapped_column(Instant, default=now)
    created_at: Mapped[datetime] = mapped_column(Instant, default=now)
    transaction_hash: Mapped[str | None] = mapped_column(String(66))
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    lost_once: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    def enter(self, state: str, error: dict[str, Any] | None = None) -> None:
        """Change the state; `error` tells why it is not the wanted one."""
        self.state, self.state_since, self.error = state, now(), error


class ChainTransaction(FoundationBase):
    """Signed bytes; those with one nonce differ in their fees. Without a block and final: given up, because another one has the nonce."""

    __tablename__ = "chain_transaction"
    __table_args__ = (Index(None, "chain_id", "sender", "nonce"),)

    hash: Mapped[str] = mapped_column(String(66), primary_key=True)
    intent_sequence: Mapped[int | None] = mapped_column(ForeignKey("chain_intent.sequence"), index=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    sender: Mapped[str] = mapped_column(String(42))
    nonce: Mapped[int] = mapped_column(BigInteger)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    signed_at: Mapped[datetime] = mapped_column(Instant, default=now)
    submitted_at: Mapped[datetime | None] = mapped_column(Instant)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    block_hash: Mapped[str | None] = mapped_column(String(66))
    mined_at: Mapped[datetime | None] = mapped_column(Instant)
    final_at: Mapped[datetime | None] = mapped_column(Instant, index=True)


def at_nonce(session: Session, chain_id: int, sender: str, nonce: int) -> dict[str, ChainTransaction]:
    """Everything that was signed with a nonce, by hash, locked: any one may be mined, and then none of the others."""
    same = (ChainTransaction.chain_id == chain_id) & (ChainTransaction.sender == sender) & (ChainTransaction.nonce == nonce)
    rows = session.scalars(select(ChainTransaction).where(same).order_by(ChainTransaction.hash).with_for_update()).all()
    return {row.hash: row for row in rows}


def enqueue_call(session: Session, *, key: str, to: str, data: bytes, gas: int, label: str) -> ChainIntent:
    """Promise a contract call together with the caller's transaction.

    Args:
        key: idempotency key; a second promise with the same key and call returns the first one's row.
        gas: ceiling; a call that needs more fails.
        label: what it is, for people.

    Raises:
        UnexpectedMessageError: the key was used for another call.
    """
    intent = ChainIntent(key=key, to=checksum_address(to), data=data, gas=gas, label=label)
    try:
        with session.begin_nested():
            session.add(intent)
    except IntegrityError:
        stored = session.scalars(select(ChainIntent).where(ChainIntent.key == key)).one()
        if (stored.to, stored.data) != (checksum_address(to), data):
            raise UnexpectedMessageError(f"the key {key} belongs to another call ({stored.label}); use a new key") from None
        return stored
    return intent
