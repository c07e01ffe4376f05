"""Whose model answered: the owner under whose authorisation a receipt is batched.

Anybody who sees a model's record can authorise it on chain, also before its owner does. So the chain does not tell whose model it is: the
receipt's issuer, who ran it, names the owner.
"""

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session, aliased

from services.verifier.models import StoredReceipt, VouchedModel


def answers_for() -> ColumnElement[bool]:
    """Condition on receipts and vouched models: this owner vouches for the receipt's model, and is the one whom its issuer named.

    If the issuer named nobody, he is the only one who vouches.
    """
    rival = aliased(VouchedModel)
    contested = exists().where(rival.model == VouchedModel.model, rival.authorised, rival.owner != VouchedModel.owner)
    named = or_(StoredReceipt.owner == VouchedModel.owner, and_(StoredReceipt.owner.is_(None), ~contested))
    return and_(VouchedModel.model == StoredReceipt.model, VouchedModel.authorised, named)


def lack_of_owner(session: Session, stored: StoredReceipt) -> str | None:
    """Why a receipt can be batched under no owner now; None if it can."""
    vouching = select(VouchedModel.owner).where(VouchedModel.model == stored.model, VouchedModel.authorised)
    if stored.owner is not None:
        if session.scalars(vouching.where(VouchedModel.owner == stored.owner)).first() is not None:
            return None
        return f"{stored.owner}, whom the issuer named as the owner, does not vouch for model {stored.model} on chain yet"
    found = session.scalars(vouching.limit(2)).all()
    if len(found) > 1:
        return f"several owners vouch for model {stored.model} on chain, and the issuer has named none of them"
    return None if found else f"no owner vouches for model {stored.model} on chain yet"
