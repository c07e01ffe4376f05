"""What an institution asks of every answer that leaves it; its own rules, which no consumer can lower."""

from dataclasses import dataclass, field

from rexis.disclosure.gate import CellRules
from rexis.errors import DisclosureError
from rexis.protocol.queries import TableQuery

# Above, one patient's bit shows through the rounding of many overlapping answers (specs/disclosure-and-compliance.md, G).
DEFAULT_BUDGET = 30


def default_cells() -> CellRules:
    """Ten subjects to a cell, multiples of five, and "nobody" is no answer either: it says as much about a group as "everybody"."""
    return CellRules(suppress_zeros=True)


@dataclass(frozen=True)
class QueryRules:
    """Rules on answers to queries.

    Attributes:
        sensitive: columns that nobody may learn about a person. All others are taken for what outsiders may single a person out by.
        cells: minimum cell k and rounding. Two answers are also never about populations that differ by fewer than k subjects.
        budget: different queries about one data set, of all consumers together.
        automatic: False holds every answer for a person.
    """

    sensitive: frozenset[str]
    cells: CellRules = field(default_factory=default_cells)
    budget: int = DEFAULT_BUDGET
    automatic: bool = True

    def __post_init__(self) -> None:
        if not self.sensitive:
            raise ValueError("expected the columns that nobody may learn about a person, got none")
        if not self.cells.suppress_zeros:
            raise ValueError("expected cell rules that suppress zeros")

    def check(self, query: TableQuery) -> None:
        """Refuse what no answer would be safe to.

        Raises:
            DisclosureError: more than one use of a sensitive column. By a second one a person could be singled out without being in the
                population that is compared with earlier ones.
        """
        used = [each.column for each in query.dimensions if each.column in self.sensitive]
        used += [each.column for each in query.filters if each.column in self.sensitive]
        if len(used) > 1:
            raise DisclosureError(f"rule one sensitive column: a query uses at most one of {', '.join(sorted(self.sensitive))}, and once")
