"""What an institution asks of every federation before any of its data is touched; the rules are its own, whatever others agreed on."""

import math
from dataclasses import dataclass

from rexis.errors import PolicyError
from rexis.protocol.federation_config import FederationConfig

MINIMUM_EXAMPLES = 10


@dataclass(frozen=True)
class PrivacyCap:
    """The most that all noisy releases about one version of a data set may cost together: ε at δ.

    Raises:
        ValueError: ε ≤ 0, or δ outside (0, 1).
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0 and 0 < self.delta < 1):
            raise ValueError(f"expected epsilon > 0 and delta in (0, 1), got {self.epsilon} and {self.delta}")


@dataclass(frozen=True)
class SitePolicy:
    """Bounds on the federations that an institution takes part in.

    Attributes:
        members: fewest institutions.
        collusion_bound: fewest colluders that its update must stay hidden from, beside the aggregator (t_c).
        min_survivors: fewest updates of a sum that is opened.
        purposes: numbers of the DUO permissions that its data may be used under; None leaves that to the grants on chain.
        examples: fewest rows of its own; a sum over fewer says too much about each.
        parameters, steps: most that it computes for a round.
        privacy: most that trained models may cost its patients, of all federations together; a federation that trains without a bound is
            refused then. None leaves that to each plan. Sums of statistics have no noise and are not counted.
        chain_away_stages: stages without a new block after which this site's node counts as away, so that signatures of participants stand
            in for the survivors that the chain would fix; 0: the chain is always waited for.
    """

    members: int = 3
    collusion_bound: int = 1
    min_survivors: int = 3
    purposes: frozenset[int] | None = None
    examples: int = MINIMUM_EXAMPLES
    parameters: int = 50_000_000
    steps: int = 100_000
    privacy: PrivacyCap | None = None
    chain_away_stages: int = 3

    def check(self, config: FederationConfig) -> None:
        """Check a federation.

        Raises:
            PolicyError: the message names the rule.
        """
        for rule, required, got in (
            ("members", self.members, len(config.members)),
            ("collusion bound", self.collusion_bound, config.collusion_bound),
            ("survivors of a round", self.min_survivors, config.min_survivors),
        ):
            if got < required:
                raise PolicyError(f"rule of this site on {rule}: expected at least {required}, the federation has {got}")
        if self.purposes is not None and config.purpose not in self.purposes:
            allowed = ", ".join(map(str, sorted(self.purposes)))
            raise PolicyError(f"rule of this site on purposes: expected DUO permission {allowed}, the federation has {config.purpose}")
        plan = config.training
        for rule, most, asked in (
            ("parameters", self.parameters, 0 if plan is None else plan.trained),
            ("local steps", self.steps, 0 if plan is None else plan.steps),
        ):
            if asked > most:
                raise PolicyError(f"rule of this site on {rule}: expected at most {most}, the federation has {asked}")
        if self.privacy is not None and plan is not None and plan.privacy is None:
            raise PolicyError(
                f"rule of this site on privacy: expected training with epsilon of at most {self.privacy.epsilon:g} at delta "
                f"{self.privacy.delta:g}, the federation has no bound"
            )

    def check_examples(self, examples: int) -> None:
        """Check the number of rows that a vector would be made from.

        Raises:
            PolicyError: too few; the message does not say how many, since it is logged.
        """
        if examples < self.examples:
            raise PolicyError(f"rule of this site on examples: expected at least {self.examples} rows, this table has fewer")
