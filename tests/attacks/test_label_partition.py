"""Returned gradients show which records share a class, whatever key they carry; noise above the gradients hides it."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from rexis.attacks.label_partition import partition_gradients, purity
from tests.attacks.keyed_weights import Array, orthogonal

GENERATOR = np.random.default_rng(16)


def gradients(x: Array, labels: Array, classes: int) -> Array:
    """∂L/∂y of softmax cross-entropy for a linear model after its first few steps, a row per record."""
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    truth, weights = np.eye(classes)[labels], np.zeros((x.shape[1], classes))
    for _ in range(5):
        weights -= 0.1 * x.T @ (_softmax(x @ weights) - truth) / len(x)
    return (_softmax(x @ weights) - truth) / len(x)


def _softmax(y: Array) -> Array:
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


CANCER_LABELS = load_breast_cancer().target
CANCER = gradients(load_breast_cancer().data, CANCER_LABELS, 2)
DIGITS_LABELS = load_digits().target
DIGITS = gradients(load_digits().data, DIGITS_LABELS, 10)


@pytest.mark.parametrize("key", [np.eye(2), orthogonal(GENERATOR, 2), np.array([[3.0, 1.0], [-0.5, 0.2]])])
def test_two_classes_fall_apart_under_any_key(key: Array) -> None:
    returned = CANCER @ np.linalg.inv(key)
    assert purity(partition_gradients(returned, 2), CANCER_LABELS) == 1.0


def test_ten_classes_fall_apart_under_a_dense_key_in_single_precision() -> None:
    returned = (DIGITS @ np.linalg.inv(orthogonal(GENERATOR, 10))).astype(np.float32)
    assert purity(partition_gradients(returned, 10), DIGITS_LABELS) > 0.99


def test_noise_above_the_gradients_is_what_helps() -> None:
    scale = np.linalg.norm(CANCER, axis=1).mean()
    clear = purity(partition_gradients(CANCER + 0.3 * scale * GENERATOR.normal(size=CANCER.shape), 2), CANCER_LABELS)
    hidden = purity(partition_gradients(CANCER + 10 * scale * GENERATOR.normal(size=CANCER.shape), 2), CANCER_LABELS)
    assert clear > 0.9
    # 62.7 % have the more frequent label, which is what guessing gives.
    assert hidden < 0.70
