"""The documents of a federation's group key, as an aggregator keeps them; nothing of them is believed before it is checked."""

from dataclasses import dataclass

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.encoding import canonical_json, to_hex
from rexis.protocol.group_keys import GroupKeyDealing, GroupKeyRecipient

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class GroupKeyDocuments:
    """What was handed in so far; `dealing` is None before there is one."""

    recipients: tuple[GroupKeyRecipient, ...]
    dealing: GroupKeyDealing | None


class GroupKeyClient:
    """Calls to one aggregator, by a member or the founder of a federation."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def documents(self, federation: bytes) -> GroupKeyDocuments:
        """What was handed in so far; no signature is checked here."""
        fields = Fields("group key", self.connection.get(_path(federation)))
        dealing = fields.optional_object("dealing")
        return GroupKeyDocuments(
            fields.items("recipients", GroupKeyRecipient.parse), None if dealing is None else GroupKeyDealing.parse(dealing)
        )

    def publish(self, recipient: GroupKeyRecipient) -> None:
        """Hand in the caller's public key; the same one again changes nothing.

        Raises:
            ServiceError: 409 `group-key-recipient` if the caller published another one before.
        """
        content = canonical_json(recipient.document())
        self.connection.request("PUT", f"{_path(recipient.federation)}/recipient", content=content, headers=JSON)

    def deal(self, dealing: GroupKeyDealing) -> None:
        """Hand in the caller's dealing; the same one again changes nothing.

        Raises:
            ServiceError: 409 `group-key-dealt` if there is another one, `group-key-recipients-missing` if somebody published no key.
        """
        content = canonical_json(dealing.document())
        self.connection.request("PUT", f"{_path(dealing.federation)}/dealing", content=content, headers=JSON)


def _path(federation: bytes) -> str:
    return f"/v1/federations/{to_hex(federation)}/group-key"
