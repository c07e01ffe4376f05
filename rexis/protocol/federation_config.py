"""What a federation agreed on before its first round: canonical JSON whose SHA-256 stands on chain as `configHash`.

Founder, members and aggregators read the same document; whoever reads another one computes another hash and takes no part.
Numbers with a fraction are decimal strings, as in everything that is hashed.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from rexis.encoding import canonical_json, domain_tag, sha256
from rexis.errors import MalformedMessageError
from rexis.models.features import FeatureSpec
from rexis.protocol.document_members import address, ascending_addresses, integer, line, members_of
from rexis.protocol.federation_plans import StatisticsPlan, TrainingPlan
from rexis.protocol.federation_rounds import federation_id

VERSION = 1
Kind = Literal["training", "statistics"]
# As in the FederationRegistry.
MIN_MEMBERS, MAX_MEMBERS, MAX_AGGREGATORS = 3, 128, 16
MIN_STAGE_S, MAX_STAGE_S = 1, 5 * 24 * 3600
# Entries of a training vector after the parameters: the weight, and the loss times the weight.
TRAINING_SLOTS = 2

_FIELDS = (
    "version name kind founder members aggregators quorum collusion_bound threshold min_survivors purpose features stage_s training "
    "statistics"
)


@dataclass(frozen=True)
class Member:
    """An institution of the roster, and the token id of the data set that it takes part with."""

    address: str
    dataset: int


@dataclass(frozen=True)
class FederationConfig:
    """Who takes part, under which thresholds, for which purpose, with which data, and what is computed.

    Attributes:
        name: one line for people.
        kind: training of a model, or one statistic.
        founder: checksum address; who was granted access to the members' data sets.
        members: ascending by address; the place from 1 is the position in secret sharing.
        aggregators: ascending checksum addresses; `quorum` of them sign.
        collusion_bound: t_c.
        threshold, min_survivors: t and the fewest updates of a sum that is opened.
        purpose: number of the DUO permission that the data are used under, as on chain.
        features: how rows become inputs and labels.
        stage_s: seconds for each stage of a round.
        training, statistics: the plan of that kind; the other is None.
    """

    name: str
    kind: Kind
    founder: str
    members: tuple[Member, ...]
    aggregators: tuple[str, ...]
    quorum: int
    collusion_bound: int
    threshold: int
    min_survivors: int
    purpose: int
    features: FeatureSpec
    stage_s: int
    training: TrainingPlan | None = None
    statistics: StatisticsPlan | None = None

    @property
    def roster(self) -> tuple[str, ...]:
        """Addresses of the members, in the order of their positions."""
        return tuple(member.address for member in self.members)

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return 1 if self.training is None else self.training.rounds

    @property
    def ring_bits(self) -> Literal[32, 64]:
        """Ring of the masked vectors."""
        return 64 if self.training is None else 32

    @property
    def length(self) -> int:
        """Entries of a masked vector."""
        return 1 + 2 * len(self.features.names) if self.training is None else self.training.parameters + TRAINING_SLOTS

    def dataset(self, member: str) -> int:
        """Token id of a member's data set.

        Raises:
            ValueError: not a member.
        """
        found = [entry.dataset for entry in self.members if entry.address == member]
        if not found:
            raise ValueError(f"expected a member of the federation, got {member}")
        return found[0]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a config that came from someone else. Whether its thresholds are safe is checked by `rexis.secagg.thresholds`.

        Raises:
            MalformedMessageError: unknown or missing fields, or a value out of bounds.
        """
        fields = members_of("federation config", value, _FIELDS)
        if type(fields["version"]) is not int or fields["version"] != VERSION:
            raise MalformedMessageError(f"expected federation config version {VERSION}, got {str(fields['version'])[:40]}")
        if fields["kind"] not in get_args(Kind):
            raise MalformedMessageError(f"federation config: expected the kind training or statistics, got {str(fields['kind'])[:40]!r}")
        training = None if fields["training"] is None else TrainingPlan.parse(fields["training"])
        statistics = None if fields["statistics"] is None else StatisticsPlan.parse(fields["statistics"])
        if (training is None, statistics is None) != (fields["kind"] != "training", fields["kind"] != "statistics"):
            raise MalformedMessageError("federation config: expected a plan of its kind and none of the other")
        members = _members(fields["members"])
        config = cls(
            name=line("name", fields["name"]),
            kind=fields["kind"],
            founder=address("founder", fields["founder"]),
            members=members,
            aggregators=ascending_addresses("aggregators", fields["aggregators"], 1, MAX_AGGREGATORS),
            quorum=integer("quorum", fields["quorum"], 1, MAX_AGGREGATORS),
            collusion_bound=integer("collusion_bound", fields["collusion_bound"], 0, len(members)),
            threshold=integer("threshold", fields["threshold"], 1, len(members)),
            min_survivors=integer("min_survivors", fields["min_survivors"], 2, len(members)),
            purpose=integer("purpose", fields["purpose"], 1, (1 << 16) - 1),
            features=FeatureSpec.parse(fields["features"]),
            stage_s=integer("stage_s", fields["stage_s"], MIN_STAGE_S, MAX_STAGE_S),
            training=training,
            statistics=statistics,
        )
        if training is not None and training.model.tabular.widths[0] != len(config.features.names):
            raise MalformedMessageError(
                f"federation config: expected a model of {len(config.features.names)} inputs, one for each feature, got "
                f"{training.model.tabular.widths[0]}"
            )
        return config

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "name": self.name,
            "kind": self.kind,
            "founder": self.founder,
            "members": [{"address": member.address, "dataset": member.dataset} for member in self.members],
            "aggregators": list(self.aggregators),
            "quorum": self.quorum,
            "collusion_bound": self.collusion_bound,
            "threshold": self.threshold,
            "min_survivors": self.min_survivors,
            "purpose": self.purpose,
            "features": self.features.document(),
            "stage_s": self.stage_s,
            "training": None if self.training is None else self.training.document(),
            "statistics": None if self.statistics is None else self.statistics.document(),
        }

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical document (32 bytes): `configHash` on chain."""
        return sha256(canonical_json(self.document()))

    @property
    def statistic_digest(self) -> bytes:
        """What stands for the base model of a statistic (32 bytes): its definition over these features and these members' data sets.

        SHA-256 of the tag `rexis/statistic/1`, a zero byte and the canonical JSON of plan, features and members. An agent answers one
        statistic of one version of its data once.
        """
        if self.statistics is None:
            raise ValueError("expected a federation for a statistic, got one for training")
        value = {
            "statistic": self.statistics.document(),
            "features": self.features.document(),
            "members": self.document()["members"],
        }
        return sha256(domain_tag("statistic", 1) + b"\0" + canonical_json(value))

    def id(self, chain_id: int, registry: str) -> bytes:
        """The federation's id on chain, known before it is there (32 bytes)."""
        return federation_id(chain_id, registry, self.founder, self.digest)


def _members(values: Any) -> tuple[Member, ...]:
    if not isinstance(values, list):
        raise MalformedMessageError("members: expected a list")
    entries = [members_of("member", value, "address dataset") for value in values]
    addresses = ascending_addresses("members", [entry["address"] for entry in entries], MIN_MEMBERS, MAX_MEMBERS)
    datasets = [integer("dataset", entry["dataset"], 1, (1 << 53) - 1) for entry in entries]
    if len(set(datasets)) < len(datasets):
        raise MalformedMessageError("members: expected another data set for each member")
    return tuple(Member(address, dataset) for address, dataset in zip(addresses, datasets, strict=True))
