"""Distributions of the key groups: Haar where it is claimed, and what the fast kind has of it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rexis.ee.groups import (
    FAST_FROM,
    FastOrthogonal,
    Group,
    HeadBlocks,
    Linear,
    MeanPreserving,
    MonomialScaling,
    Orthogonal,
    Permutation,
    PlaneScalings,
    QuarterTurns,
    ScaledPermutation,
    SignedPermutation,
)

SEED = bytes(range(32))


def matrix_of(transform: Group | HeadBlocks) -> Tensor:
    return transform.apply(torch.eye(transform.dimension, dtype=torch.float64), axis=0)


def test_orthogonal_has_the_moments_of_haar_measure() -> None:
    """E tr Q = 0, E (tr Q)² = 1, E (tr Q)⁴ = 3 (Diaconis and Shahshahani, 1994), and E q⁴ = 3/(d (d + 2)). QR without signs fails it."""
    d, draws = 5, 2000
    matrices = torch.stack([Orthogonal.draw(SEED, f"draw/{number}", d).matrix for number in range(draws)])
    traces = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)
    for power, expected, spread in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert abs(float(traces.pow(power).mean()) - expected) < 5 * (spread / draws) ** 0.5
    assert matrices.pow(4).mean().item() == pytest.approx(3 / (d * (d + 2)), rel=0.04)
    assert 0.45 < (torch.linalg.det(matrices) > 0).double().mean().item() < 0.55


def test_mean_preserving_fixes_the_ones_and_is_haar_beside_them() -> None:
    d, draws = 5, 1500
    matrices = torch.stack([MeanPreserving.draw(SEED, f"draw/{number}", d).matrix for number in range(draws)])
    ones = torch.ones(d, dtype=torch.float64)
    assert (matrices @ ones - ones).abs().max() < 1e-14
    assert (matrices.mT @ ones - ones).abs().max() < 1e-14
    # On the complement of the ones the mean of a Haar matrix is 0: what is left is 11^T/d.
    assert (matrices.mean(dim=0) - 1 / d).abs().max() < 5 * (1 / d / draws) ** 0.5
    traces = matrices.diagonal(dim1=1, dim2=2).sum(dim=1) - 1
    assert abs(float(traces.square().mean()) - 1) < 5 * (2 / draws) ** 0.5


@pytest.mark.parametrize("dimension", [FAST_FROM, FAST_FROM + 1, 3000])
def test_fast_orthogonal_spreads_every_coordinate_over_all_others(dimension: int) -> None:
    transform = FastOrthogonal.draw(SEED, "x", dimension)
    chosen = torch.linspace(0, dimension - 1, 40).long()
    basis = torch.zeros(40, dimension, dtype=torch.float64)
    basis[torch.arange(40), chosen] = 1.0
    columns = transform.apply(basis)
    torch.testing.assert_close(columns @ columns.T, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-12)
    for back in (transform.inverse().apply(columns), transform.inverse().inverse().inverse().apply(columns)):
        torch.testing.assert_close(back, basis, rtol=0, atol=1e-12)
    scaled = columns * dimension**0.5
    assert abs(scaled.mean().item()) < 5 / scaled.numel() ** 0.5
    # Kurtosis of every column, 3 for Haar. Two overlapping transforms without signs between them give 163 on average at 2049.
    kurtosis = scaled.pow(4).mean(dim=1)
    assert 2.4 < kurtosis.min() < kurtosis.max() < 3.8
    assert scaled.abs().max() < 7
    other = FastOrthogonal.draw(SEED, "y", dimension).apply(basis)
    assert (other - columns).abs().max() > 1 / dimension**0.5


def test_fast_orthogonal_keeps_dtype_and_acts_along_any_axis() -> None:
    transform = FastOrthogonal.draw(SEED, "x", 37)
    x = torch.randn(3, 37, 2, generator=torch.Generator().manual_seed(1))
    found = transform.apply(x, axis=1)
    assert (found.dtype, found.shape) == (torch.float32, x.shape)
    torch.testing.assert_close(found, torch.einsum("ij,njk->nik", matrix_of(transform).float(), x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("group", [Linear, ScaledPermutation, MonomialScaling, PlaneScalings])
def test_the_condition_is_bounded_and_nearly_reached(group: type[Group]) -> None:
    found = [float(torch.linalg.cond(matrix_of(group.draw(SEED, f"draw/{number}", 40, 3.0)))) for number in range(20)]
    assert max(found) <= 3 + 1e-9
    assert min(found) > 2
    assert torch.linalg.cond(matrix_of(group.draw(SEED, "x", 40, 1.0))) <= 1 + 1e-9


def test_permutations_signs_and_turns_are_uniform() -> None:
    draws = 1500
    places = np.bincount([int(Permutation.draw(SEED, f"draw/{number}", 5).indices[2]) for number in range(draws)], minlength=5)
    assert abs(places - draws / 5).max() < 5 * (draws / 5) ** 0.5
    signs = torch.stack([SignedPermutation.draw(SEED, f"draw/{number}", 4).signs for number in range(draws)])
    assert signs.mean(dim=0).abs().max() < 5 / draws**0.5
    turns = torch.stack([QuarterTurns.draw(SEED, f"draw/{number}", 2).real for number in range(draws)])
    assert abs((turns == 0).double().mean().item() - 0.5) < 5 * 0.5 / draws**0.5


def test_heads_move_as_wholes() -> None:
    blocks = [Linear.draw(SEED, f"block{number}", 3, 3.0) for number in range(4)]
    order = torch.tensor([2, 0, 3, 1])
    transform, matrix = HeadBlocks(order, blocks), torch.zeros(12, 12, dtype=torch.float64)
    for head, source in enumerate(order.tolist()):
        matrix[3 * head : 3 * head + 3, 3 * source : 3 * source + 3] = blocks[head].matrix
    torch.testing.assert_close(matrix_of(transform), matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(transform.inverse().apply(matrix, axis=0), torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-12)
    contragredient = transform.contragredient().apply(torch.eye(12, dtype=torch.float64), axis=0)
    torch.testing.assert_close(contragredient, torch.linalg.inv(matrix).T, rtol=0, atol=1e-12)
    assert transform.dimension == 12
    assert not transform.monomial
    assert HeadBlocks(order, [SignedPermutation.draw(SEED, f"{number}", 3) for number in range(4)]).monomial
