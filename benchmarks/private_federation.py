"""What DP-SGD by patient costs at the four hospitals: AUC on FLamby's test patients at ε = 1, 3 and 8, beside the federation without.

Everything but masks, network and chain is what agents and the aggregator run. The plan is one for all ε and was fixed before it was run;
only the noise differs, the smallest (to 0.01) with which all rounds cost no more than ε at δ = 1e-5. Batches and noise come from the
operating system, so each figure is a mean over runs with its standard deviation. The inputs are scaled by secure sums of moments, which
have no noise: ε is that of the training alone.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np

from benchmarks.federation import ROUNDS, Change, Consortium, plain_sum, table_of
from examples.heart.experimenter import Experiment
from examples.heart.hospitals import COUNTS
from examples.heart.split import read_split, split_rows
from rexis.agent.table import Table
from rexis.dp.accountant import GaussianEvent, epsilon

EPSILONS, DELTA = (1, 3, 8), "0.00001"
# Every patient is in every step: with so few of them drawing some saves less noise than the steps that it adds.
STEPS, LEARNING_RATE, CLIPPING_NORM = 2, "1", "1"
# What a step's sum is divided by at each site, a public number: patients of a hospital in the mean.
DIVISOR = 120
GRAIN = Decimal("0.01")


def accuracy_by_epsilon(runs: int) -> dict[str, Any]:
    """Mean AUC, its standard deviation over runs, and mean accuracy for each ε; `none` is the plan of `flamby`, alike each time."""
    split = read_split()
    tables = {hospital: table_of(*split_rows(hospital, split)[:2]) for hospital in COUNTS}
    found: dict[str, Any] = {"delta": float(DELTA), "rounds": ROUNDS, "local_steps": STEPS, "runs": runs, "none": _score(tables, dict)}
    for most in EPSILONS:
        noise = _least_noise(most)
        scores = [_score(tables, partial(_private, noise=noise, most=most)) for _ in range(runs)]
        found[f"epsilon_{most}"] = {
            "auc": float(np.mean([score["auc"] for score in scores])),
            "auc_sd": float(np.std([score["auc"] for score in scores], ddof=1)),
            "accuracy": float(np.mean([score["accuracy"] for score in scores])),
            "noise_multiplier": float(noise),
        }
    return {"private": found}


def _score(tables: Mapping[str, Table], change: Change) -> dict[str, float]:
    moments, model = Consortium().train(tables, plain_sum, change)
    score = Experiment(list(moments.mean), list(moments.sd)).score("federated", model, steps=ROUNDS * STEPS)
    return {"auc": score.auc, "accuracy": score.accuracy}


def _private(document: dict[str, Any], *, noise: Decimal, most: int) -> dict[str, Any]:
    privacy = {"mechanism": "dp-sgd", "noise_multiplier": str(noise), "clipping_norm": CLIPPING_NORM, "sampling_rate": "1"}
    plan = {"steps": STEPS, "learning_rate": LEARNING_RATE, "batch_size": DIVISOR}
    plan["privacy"] = {**privacy, "delta": DELTA, "epsilon": str(most)}
    return {**document, "protection": "secagg+dp", "training": {**document["training"], **plan}}


def _least_noise(most: int) -> Decimal:
    """The smallest noise multiplier, to two places, with which all rounds cost at most ε."""
    low, high = Decimal(0), Decimal(200)
    while high - low > GRAIN:
        middle = ((low + high) / 2).quantize(GRAIN)
        if epsilon([GaussianEvent(float(middle), 1.0, ROUNDS * STEPS)], float(DELTA)) <= most:
            high = middle
        else:
            low = middle
    return high
