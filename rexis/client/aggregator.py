"""The aggregator: federations."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.client.pages import fetch_pages
from rexis.encoding import checksum_address
from rexis.errors import EncodingError, MalformedMessageError


@dataclass(frozen=True)
class FederationRules:
    """What a founder decides; nothing of it changes afterwards.

    Attributes:
        name: one line.
        roster: checksum addresses of the members, in the order of their positions 1..n in secret sharing.
        collusion_bound: how many members may collude with the aggregator.
        threshold: members whose shares open a masked sum; at least floor((n + collusion_bound) / 2) + 1.
        min_survivors: fewest inputs of a sum that may be opened; at least max(threshold, collusion_bound + 2).
        strategy: fedavg, fedprox, fedadam or scaffold.
        model_spec: declarative model specification.
    """

    name: str
    roster: tuple[str, ...]
    collusion_bound: int
    threshold: int
    min_survivors: int
    strategy: str
    model_spec: dict[str, Any]


@dataclass(frozen=True)
class Federation:
    """A federation as its founder and members see it; `spec_digest` (32 bytes) is leaf 0 of every model record."""

    id: str
    founder: str
    rules: FederationRules
    spec_digest: bytes
    created_at: datetime

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("federation", value)
        rules = FederationRules(
            name=fields.text("name"),
            roster=fields.items("roster", _member),
            collusion_bound=fields.integer("collusion_bound"),
            threshold=fields.integer("threshold"),
            min_survivors=fields.integer("min_survivors"),
            strategy=fields.text("strategy"),
            model_spec=fields.object("model_spec"),
        )
        return cls(fields.text("id"), fields.address("founder"), rules, fields.digest("spec_digest"), fields.instant("created_at"))


class AggregatorClient:
    """Calls to one aggregator."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def found(self, rules: FederationRules, *, idempotency_key: str) -> Federation:
        """Found a federation; safe to repeat with the same key.

        Raises:
            ServiceError: the thresholds are unsound; the problem names the rule.
        """
        return Federation.parse(self.connection.post("/v1/federations", asdict(rules), idempotency_key=idempotency_key))

    def federation(self, federation_id: str) -> Federation:
        """One federation of the caller's.

        Raises:
            ServiceError: 404 if there is none, or the caller is no member.
        """
        return Federation.parse(self.connection.get(f"/v1/federations/{federation_id}"))

    def federations(self) -> Iterator[Federation]:
        """The caller's federations, newest first."""
        return fetch_pages(self.connection, "/v1/federations", Federation.parse)


def _member(value: Any) -> str:
    try:
        return checksum_address(value)
    except EncodingError as error:
        raise MalformedMessageError(f"federation: {error}") from error
