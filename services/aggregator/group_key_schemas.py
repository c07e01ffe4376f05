"""HTTP bodies of group keys."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rexis.protocol.federation_config import MAX_MEMBERS
from rexis.protocol.group_keys import SEALED_BYTES, GroupKeyDealing, GroupKeyRecipient

DIGEST, SIGNATURE = "^0x[0-9a-f]{64}$", "^0x[0-9a-f]{130}$"
_ADDRESS, _DIGEST, _SIGNATURE = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65", "0x" + 64 * "a", "0x" + 130 * "0"
_RECIPIENT = {"version": 1, "federation": _DIGEST, "recipient": _ADDRESS, "public_key": _DIGEST, "signature": _SIGNATURE}
_SHARE = {"recipient": _ADDRESS, "public_key": _DIGEST, "sealed": "0x" + 2 * SEALED_BYTES * "0"}
_DEALING = {
    "version": 1,
    "federation": _DIGEST,
    "dealer": _ADDRESS,
    "commitment": _DIGEST,
    "shares": [_SHARE],
    "signature": _SIGNATURE,
}


class GroupKeyRecipientBody(BaseModel):
    """A member's, or the founder's, X25519 public key, signed by its account (wire formats, section 5)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_RECIPIENT]})

    version: Literal[1]
    federation: str = Field(pattern=DIGEST)
    recipient: str = Field(max_length=42)
    public_key: str = Field(pattern=DIGEST)
    signature: str = Field(pattern=SIGNATURE)


class GroupKeyShareBody(BaseModel):
    """The group key, encrypted to one recipient."""

    model_config = ConfigDict(extra="forbid")

    recipient: str = Field(max_length=42)
    public_key: str = Field(pattern=DIGEST)
    sealed: str = Field(pattern=f"^0x[0-9a-f]{{{2 * SEALED_BYTES}}}$")


class GroupKeyDealingBody(BaseModel):
    """A member's dealing of the group key to all members and the founder, signed by its account (wire formats, section 5)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_DEALING]})

    version: Literal[1]
    federation: str = Field(pattern=DIGEST)
    dealer: str = Field(max_length=42)
    commitment: str = Field(pattern=DIGEST, description="salted digest of the key")
    shares: list[GroupKeyShareBody] = Field(min_length=1, max_length=MAX_MEMBERS + 1)
    signature: str = Field(pattern=SIGNATURE)


class GroupKeyView(BaseModel):
    """What was handed in for a federation's group key."""

    recipients: list[GroupKeyRecipientBody]
    dealing: GroupKeyDealingBody | None = Field(description="null before somebody dealt")

    @classmethod
    def of(cls, recipients: Sequence[GroupKeyRecipient], dealing: GroupKeyDealing | None) -> Self:
        """The view of the documents."""
        return cls.model_validate(
            {"recipients": [each.document() for each in recipients], "dealing": None if dealing is None else dealing.document()}
        )
