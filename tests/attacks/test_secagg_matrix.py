"""A seeded sample of the matrix of drop-outs, bad messages and equivocation for four and five sites; all of it is `make campaign`."""

import random
from collections.abc import Iterator

import pytest

from rexis.protocol.secagg_messages import Envelope
from rexis.secagg import Coordinator
from tests.campaign.secagg_matrix import Attempt, Cell, cells, failure_of
from tests.unit.secagg_rounds import noted_signatures

SEED, EACH = 20_261_121, 4


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


def sample(n: int) -> list[Cell]:
    """Some cells of every kind."""
    choice, found = random.Random(SEED + n), list(cells(n, SEED))
    by_kind = {kind: [cell for cell in found if cell.kind == kind] for kind in sorted({cell.kind for cell in found})}
    return [cell for of_kind in by_kind.values() for cell in choice.sample(of_kind, min(EACH, len(of_kind)))]


@pytest.mark.parametrize("n", [4, 5])
def test_a_sample_of_the_matrix(n: int) -> None:
    attempt, chosen = Attempt(n), sample(n)
    assert len({cell.kind for cell in chosen}) == 11
    assert [failure for cell in chosen if (failure := failure_of(cell, attempt)) is not None] == []


class Careless(Coordinator):
    """Takes whatever it is sent, whenever."""

    def receive(self, message: Envelope) -> None:
        self._messages[message.stage][self.terms.position(message.sender)] = message


def test_the_matrix_sees_an_aggregator_that_forgets_its_rules() -> None:
    attempt = Attempt(4, Careless)
    assert {cell.kind for cell in sample(4) if failure_of(cell, attempt) is not None} == {"early", "late", "repeated"}
