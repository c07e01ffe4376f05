"""From where on an attack's figure warns, and from where on the attack got through: one table, each limit with its source.

Every figure is one of which less is better. A limit is a judgement, not a proof: below it, this attack in this version did not get
further. Sources name sections of `specs/equivariant-encryption.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rexis.protocol.report_summary import Verdict


@dataclass(frozen=True)
class Limit:
    """The two thresholds of one figure.

    Attributes:
        figure: its name among the attack's figures.
        warn: from this value on, "warn".
        fail: from this value on, "fail"; None where the figure tells what every key of this kind shows, so that it warns at most.
        meaning: what the figure is, with its unit.
        source: where the thresholds come from.
    """

    figure: str
    warn: float
    fail: float | None
    meaning: str
    source: str

    def judge(self, value: float) -> Verdict:
        """The verdict on one value."""
        if self.fail is not None and value >= self.fail:
            return Verdict.FAIL
        return Verdict.WARN if value >= self.warn else Verdict.PASS


LIMITS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "record_budget": (
            Limit("known_over_rank", 0.25, 1.0, "records that may be known in plain / effective rank of the data", "corrections, item 5"),
        ),
        "known_pairs": (
            Limit("r2_known", 0.25, 0.5, "R² of other records after the pairs that may be known", "1d (a); corrections, item 5"),
            Limit("r2_tenth", 0.5, None, "R² of other records when every tenth one is known", "section 3"),
            Limit("r2_d_plus_1", 0.9, None, "R² of other records after d + 1 pairs: 1 for every key without noise", "1d (a)"),
        ),
        "exactness": (
            Limit("over_limit", 0.8, 1.0, "float error / the larger of 1e-5 and 3 times the plain model's own", "corrections, item 9"),
        ),
    }
)


def judge(attack: str, figures: Mapping[str, float]) -> Verdict:
    """The worst verdict among the limits whose figure the attack gave.

    Raises:
        ValueError: it gave none of them, so nothing is known.
    """
    verdicts = [limit.judge(figures[limit.figure]) for limit in LIMITS[attack] if limit.figure in figures]
    if not verdicts:
        raise ValueError(f"{attack}: expected one of the figures {', '.join(limit.figure for limit in LIMITS[attack])}")
    return max(verdicts, key=(Verdict.PASS, Verdict.WARN, Verdict.FAIL).index)
