"""Inference receipts: what a provider signed, kept for whoever holds the provider to it.

A receipt carries the salt of a commitment, so only its issuer and those who handed it in may read it.
"""

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from rexis.commitments import Receipt
from rexis.encoding import canonical_json, parse_canonical_json, to_hex
from rexis.errors import MalformedMessageError, UnexpectedMessageError
from services.foundation.database import lock, now
from services.foundation.problems import Problem, conflict, forbidden, not_found
from services.verifier.models import Deposit, StoredReceipt

CLOCK_SKEW = timedelta(minutes=5)
MAX_RECEIPT_BYTES = 4096


def check_time(receipt: Receipt) -> None:
    """Refuse a receipt from the future.

    Raises:
        MalformedMessageError: it is issued more than `CLOCK_SKEW` from now.
    """
    if receipt.issued > now() + CLOCK_SKEW:
        raise MalformedMessageError(f"receipt: expected a time of issue that has come, got {receipt.issued.isoformat()}; check the clock")


def deposit(session: Session, receipt: Receipt, depositor: str, *, owner: str | None = None) -> tuple[StoredReceipt, bool]:
    """Keep a receipt whose signature was checked; returns the row and whether it is new. One that was set aside waits again.

    Batch and index are not kept as given: the signature does not cover them, so only this verifier's batches can tell them.

    Args:
        owner: checksum address of the owner whose model answered, which is for the issuer alone to say; the first one stands.

    Raises:
        UnexpectedMessageError: the issuer signed the same claim before with another salt.
        Problem: 403 if another account than the issuer names an owner, 409 if the issuer named another one before.
    """
    if owner is not None and depositor != receipt.issuer:
        raise forbidden(f"expected the issuer {receipt.issuer} to name the model's owner, got {depositor}: leave it out")
    signed = replace(receipt, batch=None, index=None)
    digest = to_hex(signed.digest)
    lock(session, f"receipt {digest} {signed.issuer}")
    stored = session.get(StoredReceipt, (digest, signed.issuer))
    is_new = stored is None
    if stored is None:
        content, instant = canonical_json(signed.to_json()), now()
        stored = StoredReceipt(
            digest=digest,
            issuer=signed.issuer,
            content=content,
            received_at=instant,
            model=to_hex(signed.model),
            owner=owner,
            waiting_since=instant,
        )
        session.add(stored)
        session.flush()
    elif replace(receipt_of(stored), signature=signed.signature) != signed:
        raise UnexpectedMessageError(
            f"receipt {digest}: {signed.issuer} signed this claim before with another salt; one of the two is false"
        )
    elif stored.set_aside_at is not None:
        stored.set_aside_at, stored.waiting_since = None, now()
    if owner is not None and stored.owner not in (None, owner):
        raise conflict("other-owner", f"receipt {digest}: its issuer named the owner {stored.owner} before, got {owner}")
    stored.owner = stored.owner or owner
    if session.get(Deposit, (digest, signed.issuer, depositor)) is None:
        session.add(Deposit(digest=digest, issuer=signed.issuer, depositor=depositor, deposited_at=now()))
        session.flush()
    return stored, is_new


def readable(session: Session, digest: str, reader: str, *, issuer: str | None = None) -> StoredReceipt:
    """The receipt with this digest that `reader` issued or handed in.

    Raises:
        Problem: 404 if there is none, 409 if several issuers signed the claim and `issuer` does not choose one.
    """
    query = select(StoredReceipt).where(StoredReceipt.digest == digest, may_read(reader))
    if issuer is not None:
        query = query.where(StoredReceipt.issuer == issuer)
    found = session.scalars(query.limit(2)).all()
    if not found:
        raise not_found("receipt", digest)
    if len(found) > 1:
        raise Problem(409, "several-issuers", "Several receipts", f"several issuers signed {digest}; add ?issuer=0x… to choose one")
    return found[0]


def may_read(reader: str) -> ColumnElement[bool]:
    """Condition on receipts: `reader` issued or handed it in."""
    deposited = select(Deposit.depositor).where(
        Deposit.digest == StoredReceipt.digest, Deposit.issuer == StoredReceipt.issuer, Deposit.depositor == reader
    )
    return or_(StoredReceipt.issuer == reader, deposited.exists())


def receipt_of(stored: StoredReceipt) -> Receipt:
    """The receipt in a row, as it was signed: without batch and index."""
    return Receipt.parse(parse_canonical_json(stored.content, max_bytes=MAX_RECEIPT_BYTES))
