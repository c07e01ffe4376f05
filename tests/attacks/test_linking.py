"""Two uploads of the same weights under two keys: they are recognised, and the key from one to the other is exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis import ee
from rexis.attacks.frames import tight_frame
from rexis.attacks.linking import SAME_WEIGHTS, link_layers, link_transformers
from rexis.attacks.procrustes import rotation_error
from rexis.models.builders import build
from rexis.models.spec import MLPConfig, ModelSpec
from tests.attacks.keyed_weights import WIDTH, bert, keyed_bert, mean_preserving

SPEC = ModelSpec(MLPConfig(30, (64,), 2))
MODEL = build(SPEC, seed=1)
KEY = ee.keygen(SPEC, mode="train", knowledge="private", seed=bytes(range(32)))
ROWS = torch.randn(40, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def first_layer(key: ee.Key, model: torch.nn.Module = MODEL) -> np.ndarray:
    return ee.encrypt_model(model, key).get_submodule("0").weight.detach().numpy()


@pytest.mark.parametrize("other", [replace(KEY, epoch=1), replace(KEY, seed=bytes(32)), replace(KEY, suite="permutation", seed=bytes(32))])
def test_another_epoch_another_seed_and_another_suite_are_linked(other: ee.Key) -> None:
    linked = link_layers(first_layer(KEY), first_layer(other))
    assert linked.same_weights
    # Records of one job in the coordinates of the other.
    moved = ee.encrypt_inputs(ROWS, KEY).numpy() @ linked.relative_key.T
    assert abs(moved - ee.encrypt_inputs(ROWS, other).numpy()).max() < 1e-5


def test_scales_signs_and_keys_that_are_not_orthogonal_hide_nothing() -> None:
    generator = np.random.default_rng(14)
    first = first_layer(KEY).astype(np.float64)
    order, scales = generator.permutation(64), generator.uniform(0.5, 2, 64) * generator.choice([-1, 1], 64)
    key = generator.normal(size=(30, 30))
    linked = link_layers(first, scales[:, None] * first[order] @ key.T, odd_activation=True)
    assert np.array_equal(linked.order, order)
    assert linked.residual < 1e-9
    # Up to the one factor that scales leave open.
    factor = linked.scales[0] / scales[0]
    assert np.allclose(linked.scales, factor * scales, rtol=1e-8)
    assert rotation_error(factor * linked.relative_key, key) < 1e-8


def test_other_weights_are_not_linked() -> None:
    linked = link_layers(first_layer(KEY), first_layer(replace(KEY, seed=bytes(32)), build(SPEC, seed=2)))
    assert not linked.same_weights
    assert linked.residual > 0.1


def test_keyed_transformers_are_linked_without_the_plain_one() -> None:
    generator = np.random.default_rng(15)
    base = bert(generator)
    one, two = (keyed_bert(base, mean_preserving(generator, WIDTH), generator) for _ in range(2))
    linked = link_transformers(one.state, two.state)
    assert linked.fit < SAME_WEIGHTS
    assert rotation_error(linked.matrix, two.residual @ one.residual.T) < 1e-9
    stranger = keyed_bert(bert(generator), mean_preserving(generator, WIDTH), generator)
    assert link_transformers(one.state, stranger.state).fit > 0.5


@settings(max_examples=20, deadline=None)
@given(width=st.integers(2, 12), more=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_angles_in_the_tight_frame_are_the_same_under_every_key(width: int, more: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(2 * width + more, width))
    order = generator.permutation(len(weight))
    keyed = generator.uniform(0.2, 5, (len(weight), 1)) * weight[order] @ generator.normal(size=(width, width))
    plain, seen = tight_frame(weight).rows, tight_frame(keyed).rows
    assert abs(seen @ seen.T - plain[order] @ plain[order].T).max() < 1e-6
    assert abs(seen.T @ seen - np.eye(width) * len(weight) / width).max() < 1e-6
