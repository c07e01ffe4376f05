"""What an institution asks of every federation before any of its data is touched; the rules are its own, whatever others agreed on."""

from dataclasses import dataclass

from rexis.errors import PolicyError
from rexis.protocol.federation_config import FederationConfig

MINIMUM_EXAMPLES = 10


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
    """

    members: int = 3
    collusion_bound: int = 1
    min_survivors: int = 3
    purposes: frozenset[int] | None = None
    examples: int = MINIMUM_EXAMPLES
    parameters: int = 50_000_000
    steps: int = 100_000

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

    def check_examples(self, examples: int) -> None:
        """Check the number of rows that a vector would be made from.

        Raises:
            PolicyError: too few; the message does not say how many, since it is logged.
        """
        if examples < self.examples:
            raise PolicyError(f"rule of this site on examples: expected at least {self.examples} rows, this table has fewer")
