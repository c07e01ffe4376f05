"""Masks cancel for every set of dropouts that the thresholds admit, with seeds rebuilt from shares; and only then."""

import random
import secrets
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.errors import BelowThresholdError
from rexis.secagg import masks, shamir
from rexis.secagg.quantization import FixedPoint, RingBits, example_weight
from rexis.secagg.thresholds import check_survivors, thresholds


@settings(max_examples=40, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), n=st.integers(1, 12), data=st.data())
def test_any_t_shares_rebuild_the_secret_and_fewer_do_not(secret: bytes, n: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, n))
    shares = shamir.split(secret, threshold, range(1, n + 1))
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert shamir.combine({x: shares[x] for x in chosen}, threshold) == secret
    assert shamir.combine(shares, threshold) == secret
    with pytest.raises(BelowThresholdError):
        shamir.combine({x: shares[x] for x in chosen[1:]}, threshold)


def test_every_subset_of_five_shares() -> None:
    secret = secrets.token_bytes(32)
    shares = shamir.split(secret, 3, range(1, 6))
    for size in (1, 2):
        for chosen in combinations(shares, size):
            # Fewer points with a lower threshold give another value: no subset below t holds the secret.
            assert shamir.combine({x: shares[x] for x in chosen}, size) != secret
    assert all(shamir.combine({x: shares[x] for x in chosen}, 3) == secret for chosen in combinations(shares, 3))


def test_t_minus_one_shares_fit_every_secret() -> None:
    """Perfect secrecy: given two of three shares, for any other secret there is a third share that explains them."""
    shares = shamir.split(secrets.token_bytes(32), 3, [1, 2, 3])
    for claimed in (bytes(32), secrets.token_bytes(32)):
        # p(3) from p(0), p(1), p(2) by Lagrange: p(3) = p(0) - 3 p(1) + 3 p(2).
        third = (int.from_bytes(claimed) - 3 * int.from_bytes(shares[1]) + 3 * int.from_bytes(shares[2])) % shamir.PRIME
        assert shamir.combine({1: shares[1], 2: shares[2], 3: third.to_bytes(33)}, 3) == claimed


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 8), data=st.data(), bits=st.sampled_from([32, 64]), d=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_the_unmasked_sum_is_the_sum_of_the_survivors(n: int, data: st.DataObject, bits: RingBits, d: int, seed: int) -> None:
    needed = thresholds(n, data.draw(st.integers(0, n - 2)))
    present = data.draw(st.integers(0, n))
    order = list(range(1, n + 1))
    random.Random(seed).shuffle(order)
    survivors, dropped = sorted(order[:present]), sorted(order[present:])
    generator = np.random.default_rng(seed)
    encoding = FixedPoint(n, clipping_norm=5.0, ring_bits=bits)
    examples = {i: int(generator.integers(1, 400)) for i in order}
    updates = {i: generator.normal(size=d) for i in order}

    self_seeds = {i: secrets.token_bytes(32) for i in order}
    pair_seeds = {pair: secrets.token_bytes(32) for pair in combinations(sorted(order), 2)}
    shares = {i: shamir.split(self_seeds[i], needed.threshold, order) for i in order}

    def seeds_of(i: int) -> dict[int, bytes]:
        return {j: pair_seeds[min(i, j), max(i, j)] for j in order if j != i}

    def encoded(i: int) -> masks.RingVector:
        return encoding.encode(updates[i], weight=example_weight(examples[i], 200))

    total = np.zeros(d, dtype=np.uint32 if bits == 32 else np.uint64)
    for i in survivors:
        masked = encoded(i)
        masks.mask_update(masked, self_seeds[i], seeds_of(i), me=i)
        assert d < 8 or not np.array_equal(masked, encoded(i))
        total += masked
    if present < needed.min_survivors:
        with pytest.raises(BelowThresholdError):
            check_survivors(needed, present)
        return
    check_survivors(needed, present)

    answering = survivors[: needed.threshold]
    rebuilt = [shamir.combine({j: shares[i][j] for j in answering}, needed.threshold) for i in survivors]
    missing = {u: {i: seeds_of(u)[i] for i in survivors} for u in dropped}
    unmasked = total.copy()
    masks.unmask_sum(unmasked, rebuilt, missing)
    expected = sum((encoded(i) for i in survivors), start=np.zeros_like(total))
    assert np.array_equal(unmasked, expected)

    scaled = sum(example_weight(examples[i], 200) * updates[i] * min(1.0, 5.0 / np.linalg.norm(updates[i])) for i in survivors)
    np.testing.assert_allclose(encoding.decode(unmasked), scaled, rtol=0, atol=n / encoding.scale + 1e-12)

    if d >= 8:
        # One seed short, of either kind, and the sum stays noise.
        short = total.copy()
        masks.unmask_sum(short, rebuilt[1:], missing)
        assert not np.array_equal(short, expected)
        if dropped:
            incomplete = {u: dict(list(seeds.items())[1:]) for u, seeds in missing.items()}
            short = total.copy()
            masks.unmask_sum(short, rebuilt, incomplete)
            assert not np.array_equal(short, expected)
