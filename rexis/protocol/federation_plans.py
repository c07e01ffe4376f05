"""How a federation trains a model (wire formats, section 5)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Self, get_args

from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.models.spec import ModelSpec
from rexis.protocol.document_members import bytes32, decimal, integer, members_of, positive_decimal
from rexis.protocol.plan_parts import FEDAVG, PrivacyPlan, StoppingRule, Strategy

MAX_ROUNDS = 10_000
MAX_STEPS = 1_000_000
MAX_WEIGHT = 1_000_000
MAX_PERSONAL = 64
LocalOptimizer = Literal["sgd", "adam"]
# Entries of a training vector after the parameters: the weight, and the loss times the weight.
TRAINING_SLOTS = 2
# With early stopping, also the weight of the rows that are held back, and the loss on them times it.
STOPPING_SLOTS = 2
# In a ring of 16 bits a slot is that many entries of eight bits: a loss times a weight is below 2^40.
SLOT_ENTRIES = 5


@dataclass(frozen=True)
class TrainingPlan:
    """How a model is trained.

    Attributes:
        model: spec of the model.
        rounds: how many.
        steps: local optimiser steps in each.
        learning_rate: of the local optimiser.
        batch_size: examples to a step; None takes all. With dp-sgd, whose batches are drawn, what the noisy sum of a step is divided by.
        proximal: weight of the FedProx term; 0 is FedAvg.
        clipping_norm: largest L2 norm of an update.
        weight_cap: W: no site counts for more examples than these; with privacy every site counts the same.
        weight_band: a site's number of examples is rounded up to a multiple of this, so that the sums over different survivors do not
            tell it.
        standardisation: id of the statistics federation whose mean and sd the inputs are scaled with, 32 bytes; None for raw inputs.
        optimizer: of the local steps; its state begins anew in every round.
        strategy: what becomes of the mean update.
        personal: tensors whose names begin so stay at each site: they are trained, and never sent (FedBN, personal layers).
        privacy: differential privacy; None claims none.
        stopping: when training ends before the last round; None never.
        ring_bits: of the masked vectors; 16 is lossy compression to 2 bytes a parameter.
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
    optimizer: LocalOptimizer = "sgd"
    strategy: Strategy = FEDAVG
    personal: tuple[str, ...] = ()
    privacy: PrivacyPlan | None = None
    stopping: StoppingRule | None = None
    ring_bits: Literal[16, 32] = 32

    def weight(self, examples: int) -> int:
        """Banded and capped weight of a site with that many examples.

        Raises:
            ValueError: no examples.
        """
        if examples < 1:
            raise ValueError(f"expected at least one example, got {examples}")
        return min(self.weight_cap, self.weight_band * math.ceil(examples / self.weight_band))

    @property
    def shared(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of the tensors that are averaged, in the model's order; personal ones and those that no training moves are not."""
        frozen = self.model.frozen
        return {name: shape for name, shape in self.model.shapes.items() if not name.startswith(self.personal) and name not in frozen}

    @property
    def parameters(self) -> int:
        """Number of the parameters that are averaged."""
        return sum(math.prod(shape) for shape in self.shared.values())

    @property
    def trained(self) -> int:
        """Number of the parameters that each site trains: those that are averaged, and personal ones."""
        return sum(math.prod(shape) for shape in self.model.shapes.values())

    @property
    def length(self) -> int:
        """Entries of a masked vector: update, control variate (SCAFFOLD), and slots."""
        updates = 2 if self.strategy.name == "scaffold" else 1
        slots = TRAINING_SLOTS + (0 if self.stopping is None else STOPPING_SLOTS)
        return updates * self.parameters + slots * (SLOT_ENTRIES if self.ring_bits == 16 else 1)

    @property
    def variate_norm(self) -> float:
        """Largest L2 norm of the change of a site's control variate (SCAFFOLD), which has a bound of its own in the masked vector.

        2 C / (K η): the change is -c - Δ / (K η), and neither part is longer than C / (K η) where updates are clipped to C.
        """
        return 2.0 * float(self.clipping_norm) / (self.steps * float(self.learning_rate))

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `training` of a config."""
        fields = members_of(
            "training",
            value,
            "model rounds steps learning_rate batch_size proximal clipping_norm weight_cap weight_band standardisation",
            optional="optimizer strategy personal privacy stopping ring_bits",
        )
        optimizer, ring_bits = fields.get("optimizer", "sgd"), fields.get("ring_bits", 32)
        if optimizer not in get_args(LocalOptimizer):
            raise MalformedMessageError(f"optimizer: expected {' or '.join(get_args(LocalOptimizer))}, got {str(optimizer)[:40]!r}")
        if type(ring_bits) is not int or ring_bits not in (16, 32):
            raise MalformedMessageError(f"ring_bits: expected 16 or 32, got {str(ring_bits)[:40]}")
        batch_size, standardisation = fields["batch_size"], fields["standardisation"]
        cap = integer("weight_cap", fields["weight_cap"], 1, MAX_WEIGHT)
        plan = cls(
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
            optimizer=optimizer,
            strategy=Strategy.parse(fields["strategy"]) if "strategy" in fields else FEDAVG,
            personal=_prefixes(fields["personal"]) if "personal" in fields else (),
            privacy=PrivacyPlan.parse(fields["privacy"]) if "privacy" in fields else None,
            stopping=StoppingRule.parse(fields["stopping"]) if "stopping" in fields else None,
            ring_bits=16 if ring_bits == 16 else 32,
        )
        if not plan.parameters or any(not any(name.startswith(each) for name in plan.model.shapes) for each in plan.personal):
            raise MalformedMessageError("personal: expected prefixes of the model's tensors that leave some to be averaged")
        if plan.strategy.name == "scaffold" and (plan.optimizer != "sgd" or plan.proximal):
            raise MalformedMessageError(
                "scaffold: expected local steps of sgd without a proximal term: a control variate is the mean of their gradients"
            )
        return plan

    def document(self) -> dict[str, Any]:
        """What `parse` reads. What has its default is left out, so that a plan without it has the digest it always had."""
        optional: dict[str, Any] = {
            "optimizer": None if self.optimizer == "sgd" else self.optimizer,
            "strategy": None if self.strategy.name == "fedavg" else self.strategy.document(),
            "personal": list(self.personal) or None,
            "privacy": None if self.privacy is None else self.privacy.document(),
            "stopping": None if self.stopping is None else self.stopping.document(),
            "ring_bits": None if self.ring_bits == 32 else self.ring_bits,
        }
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
            **{name: value for name, value in optional.items() if value is not None},
        }


def _prefixes(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not 0 < len(values) <= MAX_PERSONAL or not all(isinstance(each, str) and each for each in values):
        raise MalformedMessageError(f"personal: expected a list of 1 to {MAX_PERSONAL} prefixes of tensor names")
    if values != sorted(set(values)):
        raise MalformedMessageError("personal: expected prefixes in ascending order, none twice")
    return tuple(values)
