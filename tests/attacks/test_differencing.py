"""What the table gate alone does and does not stop: `specs/disclosure-and-compliance.md` G, in its own world.

5,000 patients, a yes/no diagnosis with even prior, an attacker who can single one patient out.
"""

import numpy as np

from rexis.attacks.differencing import Population, pair_attack
from rexis.disclosure.gate import CellRules, release_count

PATIENTS, TARGETS = 5000, 200


def success_rate(rounding_base: int, pairs: int) -> float:
    """Share of targets about whom the attacker is right."""
    generator = np.random.default_rng(7)
    diagnosis = generator.random(PATIENTS) < 0.5
    rules = CellRules(rounding_base=rounding_base)

    def gate(population: Population) -> int:
        return release_count(int((population & diagnosis).sum()), rules)

    right = 0
    for target in generator.choice(PATIENTS, TARGETS, replace=False):
        groups = [generator.random(PATIENTS) < 0.1 for _ in range(pairs)]
        right += pair_attack(gate, groups, int(target)) == diagnosis[target]
    return right / TARGETS


def test_a_minimum_alone_stops_nobody() -> None:
    assert success_rate(rounding_base=1, pairs=1) == 1.0


def test_rounding_stops_one_pair() -> None:
    # Right about all who are healthy, and about one in five of the others: 0.6 expected.
    assert 0.45 < success_rate(rounding_base=5, pairs=1) < 0.7


def test_rounding_does_not_stop_twenty_pairs() -> None:
    """Why the agent must compare an answer with earlier ones before any answer is automatic."""
    assert success_rate(rounding_base=5, pairs=20) > 0.95


def test_refused_groups_tell_nothing() -> None:
    rules = CellRules()
    population = np.zeros(PATIENTS, dtype=bool)
    population[:9] = True
    assert not pair_attack(lambda members: release_count(int(members.sum()), rules), [population], target=3)
