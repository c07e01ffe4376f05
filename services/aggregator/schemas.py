"""HTTP bodies of the aggregator."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.encoding import checksum_address
from rexis.secagg.thresholds import MIN_PARTICIPANTS
from services.aggregator.federations import MAX_MEMBERS
from services.aggregator.models import Federation

Address = Annotated[
    str, AfterValidator(checksum_address), Field(max_length=42, description="Ethereum address: lower case, or with its EIP-55 checksum")
]
Strategy = Literal["fedavg", "fedprox", "fedadam", "scaffold"]

ROSTER = [
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
]
RULES: dict[str, Any] = {
    "name": "Heart disease, four hospitals",
    "roster": ROSTER,
    "collusion_bound": 1,
    "threshold": 3,
    "min_survivors": 3,
    "strategy": "fedavg",
    "model_spec": {"version": 1, "family": "mlp", "config": {"inputs": 13, "hidden": [16], "outputs": 1, "activation": "relu"}},
}


class FederationRules(BaseModel):
    """What a founder decides; nothing of it changes afterwards.

    Rules: threshold ≥ floor((n + collusion_bound) / 2) + 1 and min_survivors ≥ max(threshold, collusion_bound + 2), both ≤ n.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [RULES]})

    name: str = Field(min_length=1, max_length=120)
    roster: list[Address] = Field(
        min_length=MIN_PARTICIPANTS, max_length=MAX_MEMBERS, description="members in the order of their positions 1..n in secret sharing"
    )
    collusion_bound: int = Field(ge=0, le=MAX_MEMBERS, description="t_c: how many members may collude with the aggregator")
    threshold: int = Field(ge=1, le=MAX_MEMBERS, description="t: members whose shares open a masked sum")
    min_survivors: int = Field(ge=2, le=MAX_MEMBERS, description="fewest inputs of a sum that may be opened; never lowered in a round")
    strategy: Strategy
    model_spec: dict[str, Any] = Field(description="declarative model specification: version, family, config; never code")


class FederationView(FederationRules):
    """A federation as its founder and members see it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "b2c5f3a0d7f44d0c9b6a0f5c2f1f7f10",
                    "founder": ROSTER[0],
                    "spec_digest": "0x" + 64 * "0",
                    "created_at": "2026-11-20T09:30:00Z",
                    **RULES,
                }
            ]
        }
    )

    id: str
    founder: str
    spec_digest: str = Field(
        description="digest of the model specification with its ordered names and shapes; leaf 0 of every model record"
    )
    created_at: datetime

    @classmethod
    def of(cls, federation: Federation) -> "FederationView":
        """The view of a row."""
        return cls.model_validate(
            {
                **{column.name: getattr(federation, column.name) for column in federation.__table__.columns},
                "roster": [member.address for member in federation.members],
            }
        )


class FederationPage(BaseModel):
    """One page of federations, newest first."""

    items: list[FederationView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")
