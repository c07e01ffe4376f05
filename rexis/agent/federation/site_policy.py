"""What an institution asks of every federation before any of its data is touched; the rules are its own, whatever others agreed on."""

import math
from dataclasses import dataclass

from rexis.disclosure.gate import CellRules
from rexis.errors import PolicyError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import MASKED, Protection
from rexis.protocol.statistics_plans import MomentsPlan
from rexis.secagg.groups import group_thresholds

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
        protections: how its updates may be protected from the aggregator. `none` and `ee` give what masks would hide: they have to be
            named.
        collusion_bound: fewest colluders that its update must stay hidden from, beside the aggregator (t_c); asked of federations with
            masks, for others hide an update from nobody who colludes.
        min_survivors: fewest updates of a sum that is opened.
        purposes: numbers of the DUO permissions that its data may be used under; None leaves that to the grants on chain.
        examples: fewest rows of its own; a sum over fewer says too much about each.
        parameters, steps: most that it computes for a round.
        privacy: most that trained models may cost its patients, of all federations together; a federation that trains without a bound is
            refused then. None leaves that to each plan. Exact sums of statistics have no noise and are not counted.
        cell: fewest rows of its own, beside none, in a cell that is counted exactly.
        counts: most federations that count a column of one version of its data, exactly or, without `privacy`, with noise.
        chain_away_stages: stages without a new block after which this site's node counts as away, so that signatures of participants stand
            in for the survivors that the chain would fix; 0: the chain is always waited for.
    """

    members: int = 3
    protections: frozenset[Protection] = MASKED
    collusion_bound: int = 1
    min_survivors: int = 3
    purposes: frozenset[int] | None = None
    examples: int = MINIMUM_EXAMPLES
    parameters: int = 50_000_000
    steps: int = 100_000
    privacy: PrivacyCap | None = None
    cell: int = CellRules.min_cell_size
    counts: int = 3
    chain_away_stages: int = 3

    def check(self, config: FederationConfig) -> None:
        """Check a federation.

        Raises:
            PolicyError: the message names the rule.
        """
        if config.protection not in self.protections:
            allowed = ", ".join(sorted(self.protections))
            raise PolicyError(f"rule of this site on protections: expected {allowed}, the federation has {config.protection}")
        for rule, required, got in (
            ("members", self.members, len(config.members)),
            ("collusion bound", self.collusion_bound if config.masked else 0, config.collusion_bound),
            ("survivors in a sum", self.min_survivors, _least_summed(config)),
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
        statistic = config.statistics
        cell = None if statistic is None or isinstance(statistic, MomentsPlan) else statistic.rule.minimum_cell
        if cell is not None and cell < self.cell:
            raise PolicyError(
                f"rule of this site on cells: expected counts of cells of at least {self.cell} rows, the federation counts from {cell}"
            )
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


def _least_summed(config: FederationConfig) -> int:
    if config.groups is None:
        return config.min_survivors
    sizes = group_thresholds(len(config.members), config.groups.count, config.collusion_bound)
    return min(needed.min_survivors for needed in sizes.values())
