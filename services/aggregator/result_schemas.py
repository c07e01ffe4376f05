"""HTTP bodies of what members state."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rexis.protocol.member_results import MemberResult

DIGEST = "^0x[0-9a-f]{64}$"
_DIGEST = "0x" + 64 * "a"
_RESULT = {
    "version": 1,
    "member": "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    "federation": _DIGEST,
    "round": 3,
    "attempt": 1,
    "survivors_hash": _DIGEST,
    "aggregate": _DIGEST,
    "group_key": _DIGEST,
    "model": _DIGEST,
    "metrics": _DIGEST,
    "signature": "0x" + 130 * "0",
}


class MemberResultBody(BaseModel):
    """What a member found behind a padded sum, signed by its account (wire formats, section 5)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_RESULT]})

    version: Literal[1]
    member: str = Field(max_length=42)
    federation: str = Field(pattern=DIGEST)
    round: int
    attempt: int
    survivors_hash: str = Field(pattern=DIGEST)
    aggregate: str = Field(pattern=DIGEST, description="digest of the padded sum")
    group_key: str = Field(pattern=DIGEST, description="commitment of the key that the pads were taken off with")
    model: str = Field(pattern=DIGEST, description="record of the new model; zero if the sum gives none")
    metrics: str = Field(pattern=DIGEST, description="digest of the round's metrics, which are salted with a secret of the members")
    signature: str = Field(pattern="^0x[0-9a-f]{130}$")


class MemberResultsView(BaseModel):
    """Statements, ascending by member."""

    items: list[MemberResultBody]

    @classmethod
    def of(cls, results: Sequence[MemberResult]) -> Self:
        """The view of statements."""
        return cls.model_validate({"items": [each.document() for each in results]})
