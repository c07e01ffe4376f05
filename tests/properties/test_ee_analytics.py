"""Analytics on keyed rows decrypt to what the plain rows give, over random rows, widths and keys; other keys are refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rexis import ee
from rexis.ee import analytics
from rexis.ee.sites import Suite
from rexis.errors import UnsupportedLayerError
from rexis.models.bert import BertConfig
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec

widths = st.integers(1, 20)
counts = st.integers(2, 60)
seeds = st.integers(0, 2**32 - 1)
suites = st.sampled_from(["dense", "permutation"])
TOLERANCE = 1e-9


def table(count: int, width: int, seed: int) -> Tensor:
    """Correlated rows of unequal scales, off the origin, as a cohort's are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) * torch.arange(1, width + 1)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + 5


def same(found: Tensor, expected: Tensor) -> None:
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * scale)


@settings(max_examples=20, deadline=None)
@given(count=counts, width=widths, seed=seeds, suite=suites)
def test_mean_covariance_and_principal_components(count: int, width: int, seed: int, suite: Suite) -> None:
    x, key = table(count, width, seed), analytics.keygen(width, suite=suite, seed=seed.to_bytes(32))
    rows = analytics.encrypt_rows(x, key)
    keyed, plain = analytics.moments(rows), analytics.moments(x)
    found = keyed.decrypt(key)
    same(found.mean, x.mean(dim=0))
    same(found.covariance, torch.cov(x.T).reshape(width, width))
    if width > 2 and suite == "dense":
        assert not torch.allclose(keyed.covariance, plain.covariance, rtol=0.01)
    k = min(count - 1, width)
    keyed_components, plain_components = analytics.principal_components(rows, k), analytics.principal_components(x, k)
    decrypted = keyed_components.decrypt(key)
    same(decrypted.variances, plain_components.variances)
    same(decrypted.mean, plain_components.mean)
    # A direction is as well determined as its eigenvalue stands apart from the others.
    gap = torch.linalg.eigvalsh(torch.cov(x.T).reshape(width, width)).diff().abs().min().item() if width > 1 else 1.0
    if gap > 1e-3 * plain_components.variances[0]:
        same(decrypted.directions, plain_components.directions)
        same(keyed_components.project(rows).abs(), plain_components.project(x).abs())


@settings(max_examples=20, deadline=None)
@given(
    count=counts, width=widths, targets=st.integers(1, 4), seed=seeds, suite=suites, penalty=st.sampled_from([0.0, 0.1, 30.0]),
    keyed_targets=st.booleans(),
)  # fmt: skip
def test_regression_to_keyed_and_to_plain_targets(
    count: int, width: int, targets: int, seed: int, suite: Suite, penalty: float, keyed_targets: bool
) -> None:
    # Least squares with as many rows as columns amplifies rounding without bound: stay clear of it.
    x = torch.randn(count + width + 5, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3
    y = table(len(x), targets, seed + 1)
    key = analytics.keygen(width, targets=targets, suite=suite, seed=seed.to_bytes(32))
    rows = analytics.encrypt_rows(x, key)
    sent = analytics.encrypt_targets(y, key) if keyed_targets else y
    found = analytics.ridge(rows, sent, penalty=penalty)
    expected = analytics.ridge(x, y, penalty=penalty)
    decrypted = found.decrypt(key, targets="keyed" if keyed_targets else "plain")
    same(decrypted.weight, expected.weight)
    same(decrypted.bias, expected.bias)
    predicted = found.predict(rows)
    same(ee.decrypt_outputs(predicted, key) if keyed_targets else predicted, expected.predict(x))
    # The closed form, written down once more: (Xc^t Xc + penalty I) W^t = Xc^t Yc.
    centred, aim = x - x.mean(0), y - y.mean(0)
    normal = torch.linalg.solve(centred.T @ centred + penalty * torch.eye(width, dtype=torch.float64), centred.T @ aim)
    torch.testing.assert_close(expected.weight, normal.T, rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(8, 60), width=widths, k=st.integers(1, 6), seed=seeds, suite=suites)
def test_k_means_from_the_same_rows_and_nearest_neighbours(count: int, width: int, k: int, seed: int, suite: Suite) -> None:
    x, queries = table(count, width, seed), table(7, width, seed + 1)
    key = analytics.keygen(width, suite=suite, seed=seed.to_bytes(32))
    rows = analytics.encrypt_rows(x, key)
    starts = list(range(k))
    found, expected = analytics.k_means(rows, starts).decrypt(key), analytics.k_means(x, starts)
    assert torch.equal(found.labels, expected.labels)
    same(found.centres, expected.centres)
    assert found.inertia == pytest.approx(expected.inertia, rel=TOLERANCE)
    for cluster in expected.labels.unique().tolist():
        same(expected.centres[cluster], x[expected.labels == cluster].mean(dim=0))
    near = analytics.nearest_neighbours(rows, analytics.encrypt_rows(queries, key), k)
    plain = analytics.nearest_neighbours(x, queries, k)
    assert torch.equal(near.indices, plain.indices)
    same(near.distances, plain.distances)
    same(plain.distances[:, 0], torch.cdist(queries, x).min(dim=1).values)


def test_the_vote_takes_the_lowest_class_at_a_tie() -> None:
    near = analytics.Neighbours(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.zeros(2, 3))
    assert near.vote(torch.tensor([2, 0, 1, 1])).tolist() == [0, 1]


def test_the_key_of_a_model_serves_its_rows_too() -> None:
    key = ee.keygen(ModelSpec(MLPConfig(6, (8,), 2)), mode="train", knowledge="private")
    x = table(30, 6, 1)
    same(analytics.moments(analytics.encrypt_rows(x, key)).decrypt(key).mean, x.mean(dim=0))


def test_a_key_that_changes_distances_is_refused_on_both_ways() -> None:
    key = ee.keygen(ModelSpec(LogisticConfig(6, 2)), knowledge="private", condition=4.0)
    x = table(30, 6, 1)
    for use in (analytics.encrypt_rows, analytics.encrypt_targets, lambda x, key: analytics.moments(x).decrypt(key)):
        with pytest.raises(UnsupportedLayerError, match="another map changes distances"):
            use(x, key)
    # Why: the clustering under such a key is another one.
    stretched = ee.encrypt_inputs(x, key)
    assert not torch.allclose(torch.cdist(stretched, stretched), torch.cdist(x, x), rtol=0.05)


def test_a_key_for_token_ids_is_refused() -> None:
    key = ee.keygen(ModelSpec(BertConfig(40, 8, 8, 1, 2, 16, 2)), suite="permutation", knowledge="private")
    with pytest.raises(UnsupportedLayerError, match="runs on feature rows"):
        analytics.encrypt_rows(table(30, 8, 1), key)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: analytics.moments(x[0]),
        lambda x: analytics.moments(x * float("nan")),
        lambda x: analytics.moments(x.long()),
        lambda x: analytics.principal_components(x, 7),
        lambda x: analytics.ridge(x, x[:3], penalty=1.0),
        lambda x: analytics.ridge(x, x, penalty=-1.0),
        lambda x: analytics.k_means(x, [0, 0]),
        lambda x: analytics.k_means(x, [30]),
        lambda x: analytics.nearest_neighbours(x, x[:, :2], 1),
        lambda x: analytics.nearest_neighbours(x, x, 31),
    ],
)
def test_what_is_no_table_or_no_choice_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="expected"):
        call(table(30, 6, 1))
