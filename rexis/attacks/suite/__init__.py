"""The attacks of a privacy report: what each attacker knows, what he would read, when it applies, what it costs, and how it runs.

Each gets its own generator, so that a report can be repeated from its seed. A changed attack has a new number: a summary that names the old
one says less.
"""

from collections.abc import Mapping
from types import MappingProxyType

from rexis.attacks.suite import rows, tokens, training, weights
from rexis.attacks.suite.attack import Attack, Knows, Outcome, Reads

__all__ = ["BY_NAME", "SUITE", "SUITE_VERSION", "Attack", "Knows", "Outcome", "Reads"]

# Of the suite as a whole: goes up when an attack is added or changed.
SUITE_VERSION = 2

# From the cheapest to the dearest within each part: what the budget does not reach is what costs most.
SUITE: tuple[Attack, ...] = (*rows.ATTACKS, *training.ATTACKS, *tokens.ATTACKS, *weights.ATTACKS)

BY_NAME: Mapping[str, Attack] = MappingProxyType({attack.name: attack for attack in SUITE})
