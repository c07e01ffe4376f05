"""Parts of a federation's plan that it may leave out: strategy, differential privacy, early stopping, robust groups, scores.

A part that is left out has no member in the config's document, so that a config without it has the digest it always had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from rexis.contribution.formula import FORMULA_DIGEST
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.protocol.document_members import bytes32, decimal, integer, members_of, positive_decimal

StrategyName = Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold"]
Mechanism = Literal["dp-sgd", "skellam"]
Protection = Literal["none", "secagg", "secagg+dp", "ee"]
RobustRule = Literal["median", "trimmed-mean"]

# Protections under which vectors are masked, so that the aggregator sees no single one.
MASKED: frozenset[Protection] = frozenset({"secagg", "secagg+dp"})
# Settings of each strategy, beside the server's learning rate, by the names of Reddi et al., ICLR 2021.
_SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fedavg": (),
        "fedavgm": ("momentum",),
        "fedadam": ("beta1", "beta2", "tau"),
        "fedyogi": ("beta1", "beta2", "tau"),
        "fedadagrad": ("beta1", "tau"),
        "scaffold": (),
    }
)
MAX_PATIENCE = 1000
MIN_GROUP = 3
# Of two a median is their mean, which one of them can move anywhere.
MIN_MEDIAN = 3
MAX_EPSILON = 50
# Within these every accountant gives a figure.
MIN_NOISE, MAX_NOISE = Decimal("0.01"), Decimal(10_000)
MIN_RATE = Decimal("0.000001")
MAX_BANDS = 16
# Every payee computes the scores again, in decimal arithmetic.
MAX_SCORED_ROUNDS = 1000
MIN_CONFIDENCE, MAX_CONFIDENCE = Decimal("0.5"), Decimal("0.999")
MIN_DELTA, MAX_DELTA = Decimal("0.000000000001"), Decimal("0.01")


@dataclass(frozen=True)
class Strategy:
    """What becomes of the mean update.

    Attributes:
        name: FedAvg adds it; FedAvgM, FedAdam, FedYogi and FedAdagrad take it for a gradient; SCAFFOLD corrects the sites' drift as well.
        learning_rate: of the server; 1 for FedAvg.
        settings: by name: `momentum`; `beta1`, `beta2` and `tau`. Those of the strategy and no others.
    """

    name: StrategyName
    learning_rate: Decimal
    settings: Mapping[str, Decimal]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `strategy`.

        Raises:
            MalformedMessageError: unknown or missing fields, or a value out of bounds. So do all `parse` here.
        """
        name: Any = value.get("name") if isinstance(value, Mapping) else None
        named = [each for each in get_args(StrategyName) if each != "fedavg"]
        if name not in named:
            raise MalformedMessageError(f"strategy: expected a name among {', '.join(named)}, got {str(name)[:40]!r}")
        fields = members_of(f"strategy {name}", value, " ".join(("name", "learning_rate", *_SETTINGS[name])))
        settings = {}
        for each in _SETTINGS[name]:
            settings[each] = positive_decimal(each, fields[each]) if each == "tau" else decimal(each, fields[each], least=Decimal(0))
            if each != "tau" and settings[each] >= 1:
                raise MalformedMessageError(f"strategy {name}: {each}: expected a number of [0, 1), got {settings[each]}")
        return cls(name, positive_decimal("learning_rate", fields["learning_rate"]), MappingProxyType(settings))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "name": self.name,
            "learning_rate": str(self.learning_rate),
            **{name: str(value) for name, value in self.settings.items()},
        }


FEDAVG = Strategy("fedavg", Decimal(1), MappingProxyType({}))


@dataclass(frozen=True)
class PrivacyPlan:
    """Differential privacy of a training federation.

    Attributes:
        mechanism: "dp-sgd" clips and noises at each site, with the patient as unit; "skellam" noises the sum, with the institution as unit:
            each site adds its share of integer noise before masking.
        noise_multiplier: standard deviation of the noise by the clipping norm: of the summed gradient in each local step (dp-sgd), or of
            the sum of a round, by the plan's own clipping norm (skellam).
        clipping_norm: largest L2 norm of one patient's gradient; None for skellam, where the plan's own clipping bounds an update.
        sampling_rate: chance of a patient to be in a local step's batch (Poisson); None for skellam.
        delta: at which ε is measured.
        epsilon: most that the whole federation may cost one patient (dp-sgd) or institution (skellam).
    """

    mechanism: Mechanism
    noise_multiplier: Decimal
    clipping_norm: Decimal | None
    sampling_rate: Decimal | None
    delta: Decimal
    epsilon: Decimal

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `privacy`."""
        mechanism: Any = value.get("mechanism") if isinstance(value, Mapping) else None
        clipping_norm = rate = None
        if mechanism == "dp-sgd":
            fields = members_of("privacy", value, "mechanism noise_multiplier clipping_norm sampling_rate delta epsilon")
            clipping_norm = positive_decimal("clipping_norm", fields["clipping_norm"])
            rate = positive_decimal("sampling_rate", fields["sampling_rate"])
            if not MIN_RATE <= rate <= 1:
                raise MalformedMessageError(f"sampling_rate: expected {MIN_RATE} to 1, got {rate}")
        elif mechanism == "skellam":
            fields = members_of("privacy", value, "mechanism noise_multiplier delta epsilon")
        else:
            raise MalformedMessageError(f"privacy: expected the mechanism dp-sgd or skellam, got {str(mechanism)[:40]!r}")
        delta = positive_decimal("delta", fields["delta"])
        if not MIN_DELTA <= delta <= MAX_DELTA:
            raise MalformedMessageError(f"delta: expected {MIN_DELTA} to {MAX_DELTA}, got {delta}")
        noise, epsilon = (positive_decimal(name, fields[name]) for name in ("noise_multiplier", "epsilon"))
        if not MIN_NOISE <= noise <= MAX_NOISE:
            raise MalformedMessageError(f"noise_multiplier: expected {MIN_NOISE} to {MAX_NOISE}, got {noise}")
        if epsilon > MAX_EPSILON:
            raise MalformedMessageError(f"epsilon: expected at most {MAX_EPSILON}, which protects nobody already, got {epsilon}")
        return cls(mechanism, noise, clipping_norm, rate, delta, epsilon)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        values = {
            "noise_multiplier": self.noise_multiplier,
            "clipping_norm": self.clipping_norm,
            "sampling_rate": self.sampling_rate,
            "delta": self.delta,
            "epsilon": self.epsilon,
        }
        return {"mechanism": self.mechanism, **{name: str(value) for name, value in values.items() if value is not None}}


@dataclass(frozen=True)
class StoppingRule:
    """When to stop before the last round: by the loss on rows that each site holds back, which is summed securely.

    Attributes:
        holdout: share of a site's rows that it holds back, in (0, 1/2].
        patience: rounds without improvement after which training ends.
        improvement: smallest decrease of the mean loss that counts as one.
    """

    holdout: Decimal
    patience: int
    improvement: Decimal

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `stopping`."""
        fields = members_of("stopping", value, "holdout patience improvement")
        holdout = positive_decimal("holdout", fields["holdout"])
        if holdout > Decimal("0.5"):
            raise MalformedMessageError(f"holdout: expected a share of (0, 0.5], got {holdout}")
        patience = integer("patience", fields["patience"], 1, MAX_PATIENCE)
        return cls(holdout, patience, decimal("improvement", fields["improvement"], least=Decimal(0)))

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {"holdout": str(self.holdout), "patience": self.patience, "improvement": str(self.improvement)}

    def converged_after(self, losses: Sequence[Decimal]) -> int | None:
        """The round after which training ends, from 1; None as long as it goes on.

        Args:
            losses: mean loss on the rows held back in each round so far; that of round r is of the model that round r started from.
        """
        best, waited = None, 0
        for number, loss in enumerate(losses, start=1):
            if best is None or (loss < best and best - loss >= self.improvement):
                best, waited = loss, 0
            else:
                waited += 1
            if waited == self.patience:
                return number
        return None


@dataclass(frozen=True)
class GroupPlan:
    """Secure sums over random groups of members, and a robust rule over the groups' means, against poisoned updates.

    Attributes:
        count: groups of a round, drawn from the chain; 2 · bad + 1 of them survive `bad` dishonest ones.
        rule: of the groups' means, coordinate by coordinate.
        trim: groups left out at either end (trimmed mean); 0 for the median.
        redrawn: drawn anew in each attempt, which takes differential privacy at the sites: sums over different groups can be subtracted.
            Otherwise the first draw holds for the federation's life.
    """

    count: int
    rule: RobustRule
    trim: int = 0
    redrawn: bool = False

    @property
    def least(self) -> int:
        """Fewest groups that a round can be made of: what the rule leaves out at both ends, and one; three for a median."""
        return max(MIN_MEDIAN, 2 * self.trim + 1)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `groups`."""
        fields = members_of("groups", value, "count rule", optional="trim redrawn")
        count, redrawn = integer("count", fields["count"], 3, 128), fields.get("redrawn", False)
        if type(redrawn) is not bool:
            raise MalformedMessageError(f"groups: redrawn: expected true or false, got {str(redrawn)[:40]}")
        if fields["rule"] == "median" and "trim" not in fields:
            return cls(count, "median", redrawn=redrawn)
        if fields["rule"] == "trimmed-mean" and "trim" in fields:
            return cls(count, "trimmed-mean", integer("trim", fields["trim"], 1, (count - 1) // 2), redrawn)
        raise MalformedMessageError("groups: expected the rule median, or trimmed-mean with the field trim")

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        optional = {"trim": self.trim, "redrawn": self.redrawn}
        return {"count": self.count, "rule": self.rule, **{name: value for name, value in optional.items() if value}}


@dataclass(frozen=True)
class ScorePlan:
    """How contributions are scored and paid, fixed before round 1; the formula itself is `rexis.contribution.formula`.

    Attributes:
        bands: most bands that are paid.
        confidence: with which all members' intervals hold together.
        floor: share of the average score; a band that lies below it as a whole is paid nothing.
        cap: most that one member gets of a reward, as a share of it.
    """

    bands: int
    confidence: Decimal
    floor: Decimal
    cap: Decimal

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the member `scores`."""
        fields = members_of("scores", value, "formula bands confidence floor cap")
        formula = bytes32("formula", fields["formula"])
        if formula != FORMULA_DIGEST:
            raise MalformedMessageError(f"scores: expected the formula {to_hex(FORMULA_DIGEST)}, the only one here, got {to_hex(formula)}")
        confidence, floor, cap = (decimal(name, fields[name], least=Decimal(0)) for name in ("confidence", "floor", "cap"))
        if not MIN_CONFIDENCE <= confidence <= MAX_CONFIDENCE:
            raise MalformedMessageError(f"scores: confidence: expected {MIN_CONFIDENCE} to {MAX_CONFIDENCE}, got {confidence}")
        if floor >= 1 or not 0 < cap <= 1:
            raise MalformedMessageError(f"scores: expected a floor of [0, 1) and a cap of (0, 1], got {floor} and {cap}")
        return cls(integer("bands", fields["bands"], 1, MAX_BANDS), confidence, floor, cap)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "formula": to_hex(FORMULA_DIGEST),
            "bands": self.bands,
            "confidence": str(self.confidence),
            "floor": str(self.floor),
            "cap": str(self.cap),
        }
