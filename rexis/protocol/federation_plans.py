"""What a federation computes: the training of a model, or one statistic (wire formats, section 5)."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.models.spec import ModelSpec
from rexis.protocol.document_members import bytes32, decimal, integer, members_of, positive_decimal

MAX_ROUNDS = 10_000
MAX_STEPS = 1_000_000
MAX_WEIGHT = 1_000_000
SCALE_BITS = range(8, 33)
MOMENTS = "moments"


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
        fields = members_of(
            "training",
            value,
            "model rounds steps learning_rate batch_size proximal clipping_norm weight_cap weight_band standardisation",
        )
        batch_size, standardisation = fields["batch_size"], fields["standardisation"]
        cap = integer("weight_cap", fields["weight_cap"], 1, MAX_WEIGHT)
        return cls(
            model=ModelSpec.parse(fields["model"]),
            rounds=integer("rounds", fields["rounds"], 1, MAX_ROUNDS),
            steps=integer("steps", fields["steps"], 1, MAX_STEPS),
            learning_rate=positive_decimal("learning_rate", fields["learning_rate"]),
            batch_size=None if batch_size is None else integer("batch_size", batch_size, 1, 1 << 31),
            proximal=decimal("proximal", fields["proximal"], least=Decimal(0)),
            clipping_norm=positive_decimal("clipping_norm", fields["clipping_norm"]),
            weight_cap=cap,
            weight_band=integer("weight_band", fields["weight_band"], 1, cap),
            standardisation=None if standardisation is None else bytes32("standardisation", standardisation),
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
        fields = members_of("statistics", value, "identifier scale_bits")
        if fields["identifier"] != MOMENTS:
            raise MalformedMessageError(f"statistics: expected the identifier {MOMENTS}, got {str(fields['identifier'])[:40]!r}")
        return cls(MOMENTS, integer("scale_bits", fields["scale_bits"], SCALE_BITS.start, SCALE_BITS.stop - 1))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"identifier": self.identifier, "scale_bits": self.scale_bits}
