"""Protection `ee` for updates, from the aggregator's side: what an orthogonal key leaves it, what one member adds, and what stays hidden.

Real patients (scikit-learn's breast cancer table), logistic regression, five full-batch steps a round: what a site would send.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from rexis.agent.federation.keyed_updates import UpdateKey
from rexis.ee.groups import FastOrthogonal
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.secagg.payloads import decode_update, encode_update
from rexis.secagg.server_steps import flatten
from tests.unit.test_federation_config import CONFIG

COLUMNS, SECRET, FEDERATION = 30, bytes(range(32)), b"\7" * 32
TRIALS, CANDIDATES = 24, 32
FEATURES = {
    "version": 1,
    "inputs": [{"column": f"x{number}", "kind": "number"} for number in range(COLUMNS)],
    "target": {"column": "y", "above": "0"},
}
TRAINING = {**CONFIG["training"], "model": ModelSpec(LogisticConfig(COLUMNS, 1)).document(), "standardisation": None}
KEYED = FederationConfig.parse({**CONFIG, "protection": "ee", "collusion_bound": 0, "features": FEATURES, "training": TRAINING})


def plan() -> TrainingPlan:
    assert KEYED.training is not None
    return KEYED.training


def patients() -> tuple[Any, Any]:
    table = load_breast_cancer()
    return (table.data - table.data.mean(axis=0)) / table.data.std(axis=0), table.target


X, Y = patients()


def key_of(secret: bytes = SECRET) -> UpdateKey:
    return UpdateKey(secret, FEDERATION, plan())


def initial(key: UpdateKey) -> Any:
    return flatten(plan(), key.initial())


def update(base: Any, rows: Any, *, steps: int = 5) -> Any:
    """What a site with these patients makes of a model: weights, then bias."""
    weights, bias = base[:-1].copy(), base[-1]
    for _ in range(steps):
        excess = 1 / (1 + np.exp(-(X[rows] @ weights + bias))) - Y[rows]
        weights, bias = weights - 0.5 * excess @ X[rows] / len(rows), bias - 0.5 * excess.mean()
    return np.append(weights, bias) - base


def hospitals(generator: Any, count: int = 6) -> list[Any]:
    """Rows of hospitals: the first half treat mostly the ill, the others mostly the healthy."""
    ill, healthy = np.flatnonzero(Y == 0), np.flatnonzero(Y == 1)
    mixes = [(36, 4) if number < count // 2 else (4, 36) for number in range(count)]
    return [np.append(generator.choice(ill, few), generator.choice(healthy, many)) for few, many in mixes]


def cosines(updates: Any) -> Any:
    unit = updates / np.linalg.norm(updates, axis=1, keepdims=True)
    return unit @ unit.T


def test_lengths_of_updates_and_angles_between_them_stay_so_that_sites_are_grouped_and_followed_over_rounds() -> None:
    key, generator, followed = key_of(), np.random.default_rng(1), []
    base = initial(key)
    for _ in range(6):
        sites = hospitals(generator)
        first = np.array([update(base, rows) for rows in sites])
        later = np.array([update(base + first.mean(axis=0), rows) for rows in sites])
        seen, plain = np.array([key.keyed(each) for each in (*first, *later)]), np.concatenate([first, later])
        assert np.abs(seen @ seen.T - plain @ plain.T).max() < 1e-12
        # Which hospitals treat alike patients.
        alike = cosines(seen[:6])
        assert min(alike[:3, :3].min(), alike[3:, 3:].min()) > alike[:3, 3:].max()
        # Whose update of the next round is whose, without the names on them: half of them, one in six by chance.
        followed.append((np.argmax(cosines(seen)[:6, 6:], axis=1) == np.arange(6)).mean())
    assert np.mean(followed) == pytest.approx(0.5, abs=0.1)


def test_weights_and_losses_are_not_keyed() -> None:
    key = key_of()
    delta = update(initial(key), np.arange(80))
    found = decode_update(KEYED, encode_update(KEYED, key.keyed(delta), examples=80, loss=0.625))
    assert (found.weight, found.loss) == (100, 0.625)
    assert np.linalg.norm(found.delta) == pytest.approx(np.linalg.norm(delta), rel=1e-5)


def test_one_member_beside_the_aggregator_reads_every_update() -> None:
    """Which is why a federation that expects a colluder is refused (`FederationConfig`)."""
    key = key_of()
    rows = np.array([5])
    victim = update(initial(key), rows, steps=1)
    member = key_of()
    # From what was uploaded, fixed point and all.
    sent = decode_update(KEYED, encode_update(KEYED, key.keyed(victim), examples=200, loss=0.0)).delta
    read = member.map.inverse().apply(torch.from_numpy(sent)).numpy()
    assert np.abs(read - victim).max() < 1e-6
    assert np.abs(read[:-1] / read[-1] - X[5]).max() < 1e-3


def test_without_the_key_gradient_inversion_finds_nothing_of_a_patient() -> None:
    """One step on one patient: the bias divides the weights into the patient's very values, unless the coordinates are mixed."""
    plain, keyed = [], []
    for trial in range(TRIALS):
        key = key_of(bytes([trial]) * 32)
        sent = update(initial(key), np.array([trial]), steps=1)
        for found, vector in ((plain, sent), (keyed, key.keyed(sent))):
            guess = vector[:-1] / vector[-1]
            found.append(abs(guess @ X[trial]) / np.linalg.norm(guess) / np.linalg.norm(X[trial]))
    assert min(plain) > 1 - 1e-9
    # Unrelated vectors of 30 entries: 0.145 in the mean.
    assert 0.08 < np.mean(keyed) < 0.22


def found_by_length(known: Any) -> float:
    """How often the length of what was sent tells which of 32 patients was the last of a site's forty.

    Args:
        known: the base model that the aggregator tries candidates with, from the true key.
    """
    generator, hits = np.random.default_rng(2), 0
    for trial in range(TRIALS):
        key = key_of(bytes([trial, 1]) * 16)
        order = generator.permutation(len(Y))
        tables = [np.append(order[:39], order[39 + number]) for number in range(CANDIDATES)]
        true = int(generator.integers(CANDIDATES))
        length = np.linalg.norm(key.keyed(update(initial(key), tables[true])))
        misfits = [abs(np.linalg.norm(update(known(key), table)) - length) for table in tables]
        hits += int(np.argmin(misfits)) == true
    return hits / TRIALS


def test_a_base_model_that_the_aggregator_knows_would_let_it_test_guesses_so_members_draw_theirs() -> None:
    """Guesses that need no key: 100 % with the base model, and no better than chance (3 %) with a model of zeros or another draw."""
    assert found_by_length(initial) == 1.0
    assert found_by_length(lambda _key: np.zeros(COLUMNS + 1)) < 0.15
    assert found_by_length(lambda _key: initial(key_of(b"\xff" * 32))) < 0.15


@pytest.mark.parametrize("kind", ["haar", "fast"])
def test_as_many_known_pairs_as_parameters_give_the_key_and_half_as_many_half_of_an_update(kind: str) -> None:
    """Orthogonal Procrustes (Schönemann 1966) on pairs of an update and what was sent for it."""
    generator = np.random.default_rng(3)
    size = COLUMNS + 1 if kind == "haar" else 64
    group = key_of().map if kind == "haar" else FastOrthogonal.draw(SECRET, "updates", size)
    updates, victim = generator.normal(size=(size, size)), generator.normal(size=size)

    def sent(vectors: Any) -> Any:
        return group.apply(torch.from_numpy(vectors)).numpy()

    def error(pairs: int) -> float:
        left, _, right = np.linalg.svd(sent(updates[:pairs]).T @ updates[:pairs])
        rank = min(pairs, size)
        estimate = left[:, :rank] @ right[:rank]
        return float(np.linalg.norm(estimate.T @ sent(victim) - victim) / np.linalg.norm(victim))

    assert error(size) < 1e-8
    # What lies in the span of the known updates is read, the rest is not.
    assert error(size // 2) == pytest.approx(math.sqrt(0.5), abs=0.15)


def test_the_structured_key_has_far_fewer_unknowns_than_an_orthogonal_matrix() -> None:
    """Bits of the fast key against real numbers of a Haar matrix: by counting, two known pairs determine it."""
    width = 4096
    drawn = FastOrthogonal.draw(SECRET, "updates", width)
    bits = drawn.signs.numel() + len(drawn.indices) * math.lgamma(width + 1) / math.log(2)
    assert bits == pytest.approx(142_000, rel=0.01)
    assert bits < width * (width - 1) / 2 / 50
    # Each pair says `width` numbers of the 24 bits that are left of fixed point.
    assert bits < 2 * width * 24
