"""HTTP operations among those who have a federation's group key: its members and its founder; to its aggregators they are closed."""

from fastapi import APIRouter

from rexis.protocol.group_keys import GroupKeyDealing, GroupKeyRecipient
from services.aggregator import group_keys
from services.aggregator.dependencies import OwnFederationDep, RegistryDep
from services.aggregator.group_key_schemas import GroupKeyDealingBody, GroupKeyRecipientBody, GroupKeyView
from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep

router = APIRouter(prefix="/v1/federations/{federation_id}/group-key", tags=["group keys"])


@router.get("")
def get_group_key(federation: OwnFederationDep, caller: CallerDep, session: SessionDep) -> GroupKeyView:
    """The documents of the group key, which only its recipients can open. Open to members and founder; to strangers it does not exist."""
    group_keys.require_recipient(federation, caller.address)
    return GroupKeyView.of(group_keys.recipients(session, federation), group_keys.dealing_of(session, federation))


@router.put("/recipient", status_code=204)
def put_group_key_recipient(
    body: GroupKeyRecipientBody, federation: OwnFederationDep, caller: CallerDep, session: SessionDep, registry: RegistryDep
) -> None:
    """Publish the key to which the group key is to be encrypted; the same one again changes nothing, another one is refused.

    Open to members and founder, each for itself; to strangers it does not exist.
    """
    group_keys.require_recipient(federation, caller.address)
    group_keys.publish(session, registry, federation, GroupKeyRecipient.parse(body.model_dump()), caller.address)


@router.put("/dealing", status_code=204)
def put_group_key_dealing(
    body: GroupKeyDealingBody, federation: OwnFederationDep, caller: CallerDep, session: SessionDep, registry: RegistryDep
) -> None:
    """Deal the group key to everybody who is to have it; the first complete dealing counts for good.

    Open to members, each for itself; to strangers it does not exist.
    """
    group_keys.require_recipient(federation, caller.address)
    group_keys.deal(session, registry, federation, GroupKeyDealing.parse(body.model_dump()), caller.address)
