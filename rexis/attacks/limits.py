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
            Limit("r2_known", 0.25, 0.5, "R² of the other records after the pairs that may be known", "1d (a); corrections, item 5"),
            Limit("r2_10_percent", 0.5, None, "R² of the other records if every tenth one is known", "section 3"),
            Limit("r2_d_plus_1", 0.9, None, "R² of the other records after d + 1 pairs: 1 for every key without noise", "1d (a)"),
        ),
        "cohort_alignment": (
            Limit("r2", 0.1, 0.4, "R² of what a cohort of the same distribution reads", "1d (d), 1e"),
            Limit("reidentified_above_chance", 0.05, 0.25, "records re-identified, between chance (0) and all (1)", "1d (d), 1e"),
        ),
        "geometry": (
            Limit("distance_correlation", 0.9, None, "correlation of distances: 1 for every orthogonal key without noise", "1d (geometry)"),
            Limit("neighbours_kept", 0.5, None, "of each record's ten nearest, the share that shows", "section 3"),
            Limit(
                "purity_gain",
                0.25,
                0.7,
                "purity of clusters, between the majority class (0) and 1",
                "1d (geometry)",
            ),
        ),
        "independent_components": (
            Limit("gain", 0.1, 0.3, "mean R² of the columns found, above that of the keyed columns as they are", "1d (d); section 4"),
            Limit("exposed_columns", 0.2, None, "share of columns far from Gaussian and nearly uncorrelated", "section 3"),
        ),
        "exactness": (
            Limit("over_limit", 0.8, 1.0, "float error / the larger of 1e-5 and 3 times the plain model's own", "corrections, item 9"),
        ),
        "label_partition": (
            Limit("purity_gain", 0.25, None, "purity of the classes seen, between the majority class (0) and 1", "corrections, item 7"),
        ),
        "membership": (
            Limit("advantage", 0.2, 0.5, "2 AUC - 1 of telling members from others by their losses", "section 3; AUC 0.6 and 0.75"),
        ),
        "known_texts": (
            Limit("running_known", 0.05, 0.2, "share of the others' running tokens after those that may be known", "corrections, item 6"),
            Limit("running_10_percent", 0.2, None, "share of them if every tenth text is known", "section 3"),
        ),
        "token_frequencies": (
            Limit("running_tokens", 0.05, 0.2, "share of the running tokens that were read", "corrections, item 6"),
            Limit("top_ids", 0.05, 0.2, "share of the commonest ids that were read", "corrections, item 6"),
        ),
        "norm_gains": (Limit("read", 0.05, 0.2, "share of the residual stream's coordinates that were told", "1d (b2)"),),
        "vocabulary": (Limit("read", 0.02, 0.1, "share of the vocabulary that was read", "1d (c)"),),
        "linking": (
            Limit("alike", 0.9, 0.999, "1 - distance of the later upload from the earlier one under the key between them", "1d, last row"),
        ),
        "public_fingerprint": (
            Limit("found", 0.5, 1.0, "whether a known public model was recognised by fingerprint or spectrum", "section 3; 1d (b)"),
        ),
        "plain_model": (
            Limit("plain_site_share", 0.01, None, "of the sites, the share that the provider sees in plain", "rexis/ee/plain_model.py"),
        ),
        "plain_activations": (Limit("read", 0.05, 0.2, "R² of rows read from the first layer's activations", "sections 2 and 3"),),
        "public_base": (Limit("read", 0.05, 0.2, "share of tokens read, or R² of rows", "1d (b); corrections, item 8"),),
    }
)


def judge(attack: str, figures: Mapping[str, float]) -> Verdict:
    """The worst verdict among the limits whose figure the attack gave.

    Raises:
        ValueError: it gave none of them, so nothing is known.
    """
    verdicts = [limit.judge(figures[limit.figure]) for limit in LIMITS[attack] if limit.figure in figures]
    if not verdicts:
        # Silence is no pass.
        raise ValueError(f"{attack}: expected one of the figures {', '.join(limit.figure for limit in LIMITS[attack])}")
    return max(verdicts, key=(Verdict.PASS, Verdict.WARN, Verdict.FAIL).index)
