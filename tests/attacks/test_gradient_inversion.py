"""One gradient of a first layer: what it holds of the records, what sums over sites change, and what an EE key and noise change."""

import numpy as np
import pytest
import torch
from numpy.random import Generator

from rexis.attacks.gradient_inversion import gradient_reading, imprint, invert_gradient, read_ids
from rexis.attacks.readings import explained_variance
from tests.attacks.cohorts import halves
from tests.attacks.keyed_weights import Array, orthogonal

D, UNITS = 30, 64
Layer = tuple[Array, Array]


def first_layer(generator: Generator, units: int = UNITS) -> Layer:
    """As torch draws it."""
    bound = D**-0.5
    return generator.uniform(-bound, bound, (units, D)), generator.uniform(-bound, bound, units)


def gradients(layer: Layer, head: Array, rows: Array, labels: Array) -> Layer:
    """∂L/∂W and ∂L/∂b of a ReLU layer under a linear head [2, units] and mean cross-entropy."""
    weights, biases = layer
    hidden = rows @ weights.T + biases
    logits = np.maximum(hidden, 0) @ head.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = (shares / shares.sum(axis=1, keepdims=True) - np.eye(2)[labels]) / len(rows)
    moved = (errors @ head) * (hidden > 0)
    return moved.T @ rows, moved.sum(axis=0)


def batch(generator: Generator, size: int) -> tuple[Array, Array]:
    world = halves(generator)
    return world.rows[:size], world.labels[:size]


def test_the_gradient_of_one_record_is_the_record() -> None:
    generator = np.random.default_rng(1)
    rows, labels = batch(generator, 1)
    found = gradient_reading(*gradients(first_layer(generator), generator.normal(size=(2, UNITS)), rows, labels), truth=rows)
    assert abs(found.candidates - rows).max() < 1e-9
    assert found.figures["recovered"] == found.figures["right_candidates"] == 1


@pytest.mark.parametrize(("size", "least", "most"), [(4, 0.8, 1.0), (8, 0.25, 0.65), (32, 0.0, 0.03)])
def test_an_honest_batch_hides_records_behind_each_other(size: int, least: float, most: float) -> None:
    """Mean of ten draws; 0.93, 0.45 and 0.00 over forty."""
    shares = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        rows, labels = batch(generator, size)
        found = gradient_reading(*gradients(first_layer(generator), generator.normal(size=(2, UNITS)), rows, labels), truth=rows)
        shares.append(found.figures["recovered"])
    assert least <= np.mean(shares) <= most


def test_secure_aggregation_does_not_stop_an_aggregator_who_chooses_the_weights() -> None:
    """Twenty sites with eight records each: of the sum nobody reads a record, unless he made the layer (27 to 62 %)."""
    generator = np.random.default_rng(2)
    rows, labels = batch(generator, 160)
    head = np.tile(generator.normal(size=(2, 1)), (1, 512))

    def summed(layer: Layer) -> Layer:
        sites = [gradients(layer, head, rows[start : start + 8], labels[start : start + 8]) for start in range(0, 160, 8)]
        return sum(weights for weights, _ in sites), sum(biases for _, biases in sites)

    assert gradient_reading(*summed(first_layer(generator, 512)), truth=rows).figures["recovered"] < 0.02
    chosen = imprint(np.full(D, 1 / D), 512, mean=0.0, deviation=0.66)
    assert gradient_reading(*summed(chosen), truth=rows, imprinted=True).figures["recovered"] > 0.25


def test_noise_of_differential_privacy_leaves_nothing_even_of_one_record() -> None:
    generator = np.random.default_rng(3)
    rows, labels = batch(generator, 1)
    weights, biases = gradients(first_layer(generator), generator.normal(size=(2, UNITS)), rows, labels)
    norm = np.sqrt(np.square(weights).sum() + np.square(biases).sum())
    # Noise multiplier 1 with the clipping norm at the gradient's own.
    noisy = [values + norm * generator.standard_normal(values.shape) for values in (weights, biases)]
    candidates = invert_gradient(*noisy)
    assert gradient_reading(*noisy, truth=rows).figures["recovered"] == 0
    assert min(np.linalg.norm(candidates - rows, axis=1)) > 0.5 * np.linalg.norm(rows)


def test_under_a_key_the_provider_reads_keyed_rows_and_a_member_the_records() -> None:
    generator = np.random.default_rng(4)
    rows, labels = batch(generator, 1)
    key = orthogonal(generator, D)
    weights, biases = first_layer(generator)
    keyed = gradients((weights @ key.T, biases), generator.normal(size=(2, UNITS)), rows @ key.T, labels)
    assert gradient_reading(*keyed, truth=rows).figures["recovered"] == 0
    found = gradient_reading(*keyed, truth=rows @ key.T)
    assert found.figures["recovered"] == 1
    assert explained_variance(np.vstack([rows, -rows]), np.vstack([found.candidates[:1] @ key, -rows])) > 1 - 1e-12


def test_the_gradient_of_an_embedding_table_is_the_bag_of_words() -> None:
    table = torch.nn.Embedding(1000, 16)
    ids = torch.tensor([[7, 999, 7, 30], [0, 30, 512, 7]])
    torch.nn.functional.gelu(table(ids)).square().sum().backward()
    assert read_ids(table.weight.grad.numpy()).tolist() == [0, 7, 30, 512, 999]
    with pytest.raises(ValueError, match="finite gradient"):
        read_ids(np.zeros(4))


def test_an_empty_gradient_holds_nothing() -> None:
    found = gradient_reading(np.zeros((4, 3)), np.zeros(4), truth=np.eye(3))
    assert len(found.candidates) == 0
    assert found.figures["recovered"] == 0


def test_gradients_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected finite gradients"):
        invert_gradient(np.zeros((4, 3)), np.zeros(3))
    with pytest.raises(ValueError, match=r"expected records \[n, 3\]"):
        gradient_reading(np.ones((4, 3)), np.ones(4), truth=np.eye(4))
