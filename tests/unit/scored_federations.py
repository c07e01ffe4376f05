"""A federation with scores, and rounds of it as its aggregator leaves them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rexis.contribution.formula import FORMULA_DIGEST
from rexis.encoding import checksum_address, sha256, to_hex
from rexis.protocol.contributions import ContributionBundle
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.groups import draw_groups
from rexis.secagg.payloads import MeanUpdate
from rexis.secagg.scored_rounds import METRIC, scored_round, values_of

MEMBERS = tuple(checksum_address(f"0x{17 * number:040x}") for number in range(1, 10))
SCORES = {"formula": to_hex(FORMULA_DIGEST), "bands": 4, "confidence": "0.9", "floor": "0.25", "cap": "0.5"}
PRIVACY = {
    "mechanism": "dp-sgd",
    "noise_multiplier": "1",
    "clipping_norm": "1",
    "sampling_rate": "0.1",
    "delta": "0.0001",
    "epsilon": "20",
}


def scored_document(members: Sequence[str] = MEMBERS, **changes: Any) -> dict[str, Any]:
    """Nine sites in three groups that are drawn anew in each of ten rounds."""
    return {
        "version": 1,
        "name": "scored",
        "kind": "training",
        "founder": checksum_address("0x" + 40 * "a"),
        "members": [{"address": address, "dataset": number} for number, address in enumerate(members, start=1)],
        "aggregators": [checksum_address("0x" + 40 * "b")],
        "quorum": 1,
        "collusion_bound": 1,
        "threshold": 6,
        "min_survivors": 6,
        "purpose": 6,
        "features": {
            "version": 1,
            "inputs": [{"column": "age", "kind": "number"}],
            "target": {"column": "num", "above": "0"},
        },
        "stage_s": 60,
        "training": {
            "model": {"version": 1, "family": "logistic", "config": {"inputs": 1, "outputs": 1}},
            "rounds": 10,
            "steps": 2,
            "learning_rate": "0.5",
            "batch_size": 8,
            "proximal": "0",
            "clipping_norm": "10",
            "weight_cap": 200,
            "weight_band": 25,
            "standardisation": None,
            "privacy": PRIVACY,
        },
        "statistics": None,
        "protection": "secagg+dp",
        "groups": {"count": 3, "rule": "median", "redrawn": True},
        "scores": SCORES,
        **changes,
    }


def seed_of(number: int) -> bytes:
    """Hash of the block that opened a round."""
    return sha256(b"block %d" % number)


def metrics_of(
    config: FederationConfig, number: int, survivors: Sequence[str] | None = None, *, idle: int = 0, seed: bytes | None = None
) -> dict[str, Any]:
    """Metrics of a round in which every site sends much the same, and the first `idle` ones nothing.

    Args:
        survivors: who is in the sums; everybody if None.
        seed: that drew the groups; `seed_of` if None.
    """
    generator = np.random.default_rng(number)
    present = set(config.roster if survivors is None else survivors)
    sent = 1 + 0.1 * generator.normal(size=(len(config.roster), 4))
    sent[:idle] = 0
    assert config.groups is not None
    drawn = draw_groups(seed or seed_of(number), len(config.roster), config.groups.count)
    placed = [[position - 1 for position in group if config.roster[position - 1] in present] for group in drawn]
    means = [MeanUpdate(sent[group].mean(axis=0), None, len(group)) for group in placed if group]
    return {"version": 1, "weight": len(present), METRIC: values_of(means)}


def bundle_of(config: FederationConfig, federation: bytes = bytes(32), rounds: int = 10, idle: int = 0) -> ContributionBundle:
    """The bundle of rounds without drop-outs."""
    made = [scored_round(config, n, seed_of(n), config.roster, metrics_of(config, n, idle=idle)) for n in range(1, rounds + 1)]
    return ContributionBundle(federation, config.digest, tuple(made))
