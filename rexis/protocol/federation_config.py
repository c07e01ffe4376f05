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
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.federation_rounds import federation_id
from rexis.protocol.federation_rules import check_parts
from rexis.protocol.learning_tasks import check_task
from rexis.protocol.plan_parts import MASKED, GroupPlan, PrivacyPlan, Protection, ScorePlan
from rexis.protocol.secagg_messages import SALT_BYTES
from rexis.protocol.statistics_plans import MomentsPlan, StatisticsPlan, parse_statistics

VERSION = 1
Kind = Literal["training", "statistics"]
# As in the FederationRegistry.
MIN_MEMBERS, MAX_MEMBERS, MAX_AGGREGATORS = 3, 128, 16
MIN_STAGE_S, MAX_STAGE_S = 1, 5 * 24 * 3600

_FIELDS = (
    "version name kind founder members aggregators quorum collusion_bound threshold min_survivors purpose features stage_s training "
    "statistics"
)
_OPTIONAL = "protection group_pad degree groups scores"


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
        protection: of single updates against the aggregator.
        group_pad: members put a pad on the sum that the aggregator can not take off; they compute each round's result themselves.
        degree: neighbours of each member in secret sharing, an even number; None for the complete graph.
        groups: robust combination of the sums of random groups; None for one sum over all.
        scores: of the members' contributions, from the means of groups; None for none.
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
    protection: Protection = "secagg"
    group_pad: bool = False
    degree: int | None = None
    groups: GroupPlan | None = None
    scores: ScorePlan | None = None

    @property
    def roster(self) -> tuple[str, ...]:
        """Addresses of the members, in the order of their positions."""
        return tuple(member.address for member in self.members)

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return 1 if self.training is None else self.training.rounds

    @property
    def ring_bits(self) -> Literal[16, 32, 64]:
        """Ring of the masked vectors."""
        return 64 if self.training is None else self.training.ring_bits

    @property
    def length(self) -> int:
        """Entries of a vector before it is masked, or salted."""
        if self.statistics is not None:
            return self.statistics.length(self.features)
        return 0 if self.training is None else self.training.length

    @property
    def privacy(self) -> PrivacyPlan | None:
        """Differential privacy of the plan; None if it claims none."""
        if self.training is not None:
            return self.training.privacy
        return None if self.statistics is None or isinstance(self.statistics, MomentsPlan) else self.statistics.rule.privacy

    @property
    def masked(self) -> bool:
        """Whether sites mask their vectors; without masks the aggregator sees every single one."""
        return self.protection in MASKED

    @property
    def upload_length(self) -> int:
        """Entries of an uploaded vector: without masks it ends with a salt (`rexis.secagg.plain_survivors`)."""
        return self.length if self.masked else self.length + 8 * SALT_BYTES // self.ring_bits

    @property
    def leaves_one_sum(self) -> bool:
        """Whether each round leaves one opened sum, from which members compute the next model themselves."""
        return self.training is not None and self.groups is None and self.masked

    @property
    def has_group_key(self) -> bool:
        """Whether members and founder need a key that no aggregator has (`rexis.protocol.group_keys`)."""
        return self.group_pad or self.protection == "ee"

    @property
    def most_summed(self) -> int:
        """Most updates in one sum: all members', or those of the largest group."""
        return len(self.members) if self.groups is None else -(-len(self.members) // self.groups.count)

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
        fields = members_of("federation config", value, _FIELDS, optional=_OPTIONAL)
        if type(fields["version"]) is not int or fields["version"] != VERSION:
            raise MalformedMessageError(f"expected federation config version {VERSION}, got {str(fields['version'])[:40]}")
        if fields["kind"] not in get_args(Kind):
            raise MalformedMessageError(f"federation config: expected the kind training or statistics, got {str(fields['kind'])[:40]!r}")
        training = None if fields["training"] is None else TrainingPlan.parse(fields["training"])
        statistics = None if fields["statistics"] is None else parse_statistics(fields["statistics"])
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
            protection=fields.get("protection", "secagg"),
            group_pad=fields.get("group_pad", False),
            degree=integer("degree", fields["degree"], 2, len(members) - 1) if "degree" in fields else None,
            groups=GroupPlan.parse(fields["groups"]) if "groups" in fields else None,
            scores=ScorePlan.parse(fields["scores"]) if "scores" in fields else None,
        )
        check_parts(config)
        check_task(config.features, training)
        return config

    def document(self) -> dict[str, Any]:
        """What `parse` reads. Parts that have their default are left out, so that a config without them has the digest it always had."""
        optional: dict[str, Any] = {
            "protection": None if self.protection == "secagg" else self.protection,
            "group_pad": self.group_pad,
            "degree": self.degree,
            "groups": None if self.groups is None else self.groups.document(),
            "scores": None if self.scores is None else self.scores.document(),
        }
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
            **{name: value for name, value in optional.items() if value},
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

    def trained_base(self, federation: bytes, record: bytes) -> bytes:
        """What stands for the model that members train from in a round (32 bytes), so that nobody trains twice on one.

        Its record; with protection ee, where the record is of what was accumulated from zeros on and the model behind it another one in
        each federation, SHA-256 of the tag `rexis/federation/keyed-base/1`, a zero byte, the federation's id and the record.
        """
        if self.protection != "ee":
            return record
        return sha256(domain_tag("federation/keyed-base", 1) + b"\0" + federation + record)

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
