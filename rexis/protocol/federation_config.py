"""What a federation agreed on before its first round: canonical JSON whose SHA-256 stands on chain as `configHash`.

Founder, members and aggregators read the same document; whoever reads another one computes another hash and takes no part.
Numbers with a fraction are decimal strings, as in everything that is hashed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Self, get_args

from rexis.encoding import canonical_json, checksum_address, domain_tag, from_hex, require_text, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.models.features import FeatureSpec
from rexis.models.spec import ModelSpec
from rexis.protocol.federation_rounds import federation_id

VERSION = 1
Kind = Literal["training", "statistics"]
# As in the FederationRegistry.
MIN_MEMBERS, MAX_MEMBERS, MAX_AGGREGATORS = 3, 128, 16
MAX_ROUNDS = 10_000
MIN_STAGE_S, MAX_STAGE_S = 1, 5 * 24 * 3600
MAX_WEIGHT = 1_000_000
SCALE_BITS = range(8, 33)
MOMENTS = "moments"
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
class TrainingPlan:
    """How a model is trained.

    Attributes:
        model: spec of the model.
        rounds: how many.
        steps: local optimiser steps in each.
        learning_rate: of SGD.
        batch_size: examples to a step; None takes all.
        proximal: weight of the FedProx term; 0 is FedAvg.
        clipping_norm: largest L2 norm of an update.
        weight_cap: W: no site counts for more examples than these.
        weight_band: a site's number of examples is rounded up to a multiple of this, so that the sums over different survivors do not
            tell it.
        standardisation: id of the statistics federation whose mean and sd the inputs are scaled with, 32 bytes; None for raw inputs.
    """

    model: ModelSpec
    rounds: int
    steps: int
    learning_rate: Decimal
    batch_size: int | None
    proximal: Decimal
    clipping_norm: Decimal
    weight_cap: int
    weight_band: int
    standardisation: bytes | None

    def weight(self, examples: int) -> int:
        """Banded and capped weight of a site with that many examples.

        Raises:
            ValueError: no examples.
        """
        if examples < 1:
            raise ValueError(f"expected at least one example, got {examples}")
        return min(self.weight_cap, self.weight_band * math.ceil(examples / self.weight_band))

    @property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return sum(math.prod(shape) for shape in self.model.shapes.values())

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `training` of a config."""
        fields = _object(
            "training",
            value,
            "model rounds steps learning_rate batch_size proximal clipping_norm weight_cap weight_band standardisation",
        )
        batch_size, standardisation = fields["batch_size"], fields["standardisation"]
        cap = _integer("weight_cap", fields["weight_cap"], 1, MAX_WEIGHT)
        return cls(
            model=ModelSpec.parse(fields["model"]),
            rounds=_integer("rounds", fields["rounds"], 1, MAX_ROUNDS),
            steps=_integer("steps", fields["steps"], 1, 1_000_000),
            learning_rate=_positive("learning_rate", fields["learning_rate"]),
            batch_size=None if batch_size is None else _integer("batch_size", batch_size, 1, 1 << 31),
            proximal=_decimal("proximal", fields["proximal"], least=Decimal(0)),
            clipping_norm=_positive("clipping_norm", fields["clipping_norm"]),
            weight_cap=cap,
            weight_band=_integer("weight_band", fields["weight_band"], 1, cap),
            standardisation=None if standardisation is None else _bytes32("standardisation", standardisation),
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "model": self.model.document(),
            "rounds": self.rounds,
            "steps": self.steps,
            "learning_rate": str(self.learning_rate),
            "batch_size": self.batch_size,
            "proximal": str(self.proximal),
            "clipping_norm": str(self.clipping_norm),
            "weight_cap": self.weight_cap,
            "weight_band": self.weight_band,
            "standardisation": None if self.standardisation is None else to_hex(self.standardisation),
        }


@dataclass(frozen=True)
class StatisticsPlan:
    """A secure sum of counts and moments of the features, in fixed point.

    Attributes:
        identifier: what is summed; `moments` is n, Σx and Σx² of each feature.
        scale_bits: binary places after the point.
    """

    identifier: str
    scale_bits: int

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `statistics` of a config."""
        fields = _object("statistics", value, "identifier scale_bits")
        if fields["identifier"] != MOMENTS:
            raise MalformedMessageError(f"statistics: expected the identifier {MOMENTS}, got {str(fields['identifier'])[:40]!r}")
        return cls(MOMENTS, _integer("scale_bits", fields["scale_bits"], SCALE_BITS.start, SCALE_BITS.stop - 1))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"identifier": self.identifier, "scale_bits": self.scale_bits}


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
        fields = _object("federation config", value, _FIELDS)
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
            name=_line("name", fields["name"]),
            kind=fields["kind"],
            founder=_address("founder", fields["founder"]),
            members=members,
            aggregators=_ascending("aggregators", fields["aggregators"], 1, MAX_AGGREGATORS),
            quorum=_integer("quorum", fields["quorum"], 1, MAX_AGGREGATORS),
            collusion_bound=_integer("collusion_bound", fields["collusion_bound"], 0, len(members)),
            threshold=_integer("threshold", fields["threshold"], 1, len(members)),
            min_survivors=_integer("min_survivors", fields["min_survivors"], 2, len(members)),
            purpose=_integer("purpose", fields["purpose"], 1, (1 << 16) - 1),
            features=FeatureSpec.parse(fields["features"]),
            stage_s=_integer("stage_s", fields["stage_s"], MIN_STAGE_S, MAX_STAGE_S),
            training=training,
            statistics=statistics,
        )
        if training is not None and training.model.config.widths[0] != len(config.features.names):
            raise MalformedMessageError(
                f"federation config: expected a model of {len(config.features.names)} inputs, one for each feature, got "
                f"{training.model.config.widths[0]}"
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


def _object(what: str, value: Any, names: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(names.split()):
        raise MalformedMessageError(f"{what}: expected an object with exactly the fields {', '.join(sorted(names.split()))}")
    return value


def _integer(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise MalformedMessageError(f"{name}: expected an integer of {least} to {most}, got {str(value)[:40]}")
    return value


def _decimal(name: str, value: Any, *, least: Decimal) -> Decimal:
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= 40 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number < least or number > Decimal("1e12"):
        raise MalformedMessageError(f"{name}: expected a decimal string of {least} to 1e12, got {str(value)[:40]!r}")
    return number


def _positive(name: str, value: Any) -> Decimal:
    number = _decimal(name, value, least=Decimal(0))
    if float(number) <= 0:
        raise MalformedMessageError(f"{name}: expected a number above 0, got {str(value)[:40]!r}")
    return number


def _line(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 120 or "\n" in value:
        raise MalformedMessageError(f"{name}: expected one line of 1 to 120 characters")
    try:
        require_text(name, value)
    except EncodingError as error:
        raise MalformedMessageError(str(error)) from error
    return value


def _address(name: str, value: Any) -> str:
    try:
        address = checksum_address(value)
    except (EncodingError, TypeError, AttributeError) as error:
        raise MalformedMessageError(f"{name}: {error}") from error
    if address != value or int(address, 16) == 0:
        raise MalformedMessageError(f"{name}: expected a checksum address other than zero, got {str(value)[:50]!r}")
    return address


def _ascending(name: str, values: Any, least: int, most: int) -> tuple[str, ...]:
    if not isinstance(values, list) or not least <= len(values) <= most:
        raise MalformedMessageError(f"{name}: expected a list of {least} to {most} addresses")
    addresses = [_address(name, value) for value in values]
    keys = [address.lower() for address in addresses]
    if keys != sorted(set(keys)):
        raise MalformedMessageError(f"{name}: expected addresses in ascending order, none twice")
    return tuple(addresses)


def _members(values: Any) -> tuple[Member, ...]:
    if not isinstance(values, list):
        raise MalformedMessageError("members: expected a list")
    entries = [_object("member", value, "address dataset") for value in values]
    addresses = _ascending("members", [entry["address"] for entry in entries], MIN_MEMBERS, MAX_MEMBERS)
    datasets = [_integer("dataset", entry["dataset"], 1, (1 << 53) - 1) for entry in entries]
    if len(set(datasets)) < len(datasets):
        raise MalformedMessageError("members: expected another data set for each member")
    return tuple(Member(address, dataset) for address, dataset in zip(addresses, datasets, strict=True))


def _bytes32(name: str, value: Any) -> bytes:
    try:
        return from_hex(value, 32)
    except (EncodingError, TypeError, AttributeError) as error:
        raise MalformedMessageError(f"{name}: {error}") from error
