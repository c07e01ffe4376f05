"""Documents of group keys: kept once, and passed on among those who are to have the key. This aggregator can open none of them."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.errors import SignatureError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.group_keys import GroupKeyDealing, GroupKeyRecipient, check_recipients, recipients_of
from rexis.secagg.key_agreement import check_public_key
from services.aggregator.models import Federation, GroupKeyDealingRow, GroupKeyRecipientRow
from services.aggregator.registry_calls import Registry
from services.foundation.database import lock, now
from services.foundation.problems import conflict, forbidden


def require_recipient(federation: Federation, address: str) -> None:
    """What only those may do who are to have the group key.

    Raises:
        Problem: 403 for the federation's aggregators.
    """
    config = FederationConfig.parse(federation.config)
    if address not in recipients_of(config):
        raise forbidden(f"{address} is neither a member nor the founder of federation {federation.id}, and only they have its group key")


def publish(session: Session, registry: Registry, federation: Federation, recipient: GroupKeyRecipient, caller: str) -> None:
    """Keep a public key; the same one again changes nothing.

    Raises:
        SignatureError: another account's, or not signed by it.
        UnexpectedMessageError: of another federation.
        MalformedMessageError: no canonical point of large order.
        Problem: 409 for a second, different key.
    """
    if recipient.recipient != caller:
        raise SignatureError(f"expected the public key of the account that is signed in, {caller}, got one of {recipient.recipient}")
    check_recipients([recipient], bytes.fromhex(federation.id[2:]), registry.chain_id, registry.address)
    check_public_key("group", recipient.public_key)
    lock(session, f"group key of {federation.id}")
    known = session.get(GroupKeyRecipientRow, (federation.id, caller))
    if known is None:
        session.add(GroupKeyRecipientRow(federation_id=federation.id, recipient=caller, document=recipient.document()))
    elif GroupKeyRecipient.parse(known.document).public_key != recipient.public_key:
        raise conflict("group-key-recipient", f"{caller} published another public key for this federation before: the first one counts")


def deal(session: Session, registry: Registry, federation: Federation, dealing: GroupKeyDealing, caller: str) -> None:
    """Keep the first complete dealing; the same one again changes nothing.

    Raises:
        SignatureError: another account's, or not signed by it.
        UnexpectedMessageError: of another federation, by somebody who is no member, or for others, or other keys, than were published.
        Problem: 409 if there is another one, or somebody has not published a key yet.
    """
    if dealing.dealer != caller:
        raise SignatureError(f"expected a dealing of the account that is signed in, {caller}, got one of {dealing.dealer}")
    config = FederationConfig.parse(federation.config)
    dealing.verify(config, registry.chain_id, registry.address)
    lock(session, f"group key of {federation.id}")
    known = session.get(GroupKeyDealingRow, federation.id)
    if known is not None:
        if GroupKeyDealing.parse(known.document).typed_data(registry.chain_id, registry.address) != dealing.typed_data(
            registry.chain_id, registry.address
        ):
            raise conflict("group-key-dealt", f"{known.dealer} dealt the group key of federation {federation.id} before: that one counts")
        return
    published = {each.recipient: each.public_key for each in recipients(session, federation)}
    missing = [who for who in recipients_of(config) if who not in published]
    if missing:
        raise conflict("group-key-recipients-missing", f"{', '.join(missing)} have published no key yet: nobody can deal to them")
    if {share.recipient: share.public_key for share in dealing.shares} != published:
        raise UnexpectedMessageError("expected a dealing for the public keys that were published, got one for others")
    session.add(GroupKeyDealingRow(federation_id=federation.id, dealer=caller, document=dealing.document(), dealt_at=now()))


def recipients(session: Session, federation: Federation) -> tuple[GroupKeyRecipient, ...]:
    """The public keys that were published, ascending by address."""
    query = select(GroupKeyRecipientRow.document).where(GroupKeyRecipientRow.federation_id == federation.id)
    found = [GroupKeyRecipient.parse(document) for document in session.scalars(query)]
    return tuple(sorted(found, key=lambda each: each.recipient.lower()))


def dealing_of(session: Session, federation: Federation) -> GroupKeyDealing | None:
    """The dealing that counts, or None."""
    known = session.get(GroupKeyDealingRow, federation.id)
    return None if known is None else GroupKeyDealing.parse(known.document)


def is_agreed(session: Session, federation: Federation) -> bool:
    """Whether rounds may begin as far as a group key goes: it was dealt, or there is none."""
    return not FederationConfig.parse(federation.config).has_group_key or session.get(GroupKeyDealingRow, federation.id) is not None
