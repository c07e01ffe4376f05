"""Thresholds of the specification's table, Shamir's field, the mask stream, and the fixed-point encoding at its bounds."""

import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from rexis.errors import BelowThresholdError, MalformedMessageError
from rexis.secagg import masks, shamir
from rexis.secagg.quantization import FixedPoint, example_weight
from rexis.secagg.thresholds import check_survivors, thresholds


@pytest.mark.parametrize(
    ("n", "t_c", "threshold", "dropouts"),
    # specs/secure-aggregation.md 3.1
    [(3, 1, 3, 0), (4, 1, 3, 1), (5, 1, 4, 1), (10, 3, 7, 3), (20, 6, 14, 6), (100, 33, 67, 33)],
)
def test_thresholds_of_the_table(n: int, t_c: int, threshold: int, dropouts: int) -> None:
    found = thresholds(n, t_c)
    assert (found.threshold, found.dropouts) == (threshold, dropouts)


def test_thresholds_are_sound_wherever_they_are_given() -> None:
    for n in range(3, 60):
        for t_c in range(n):
            try:
                found = thresholds(n, t_c)
            except BelowThresholdError:
                # Nobody may be refused who could have been served: even with all present, fewer than two honest, or t out of reach.
                assert n - t_c < 2 or (n + t_c) // 2 + 1 > n
                continue
            assert 2 * found.threshold > n + t_c
            assert found.min_survivors >= found.threshold
            assert found.min_survivors - t_c >= 2
            assert found.min_survivors <= n


def test_semi_honest_thresholds() -> None:
    found = thresholds(10, 3, "semi-honest")
    assert (found.threshold, found.min_survivors) == (6, 6)
    assert thresholds(5, 3, "semi-honest").min_survivors == 5


@pytest.mark.parametrize(("n", "t_c"), [(0, 0), (1, 0), (2, 0), (3, 2), (4, 3), (10, 9)])
def test_unsound_rosters_are_refused_with_the_rule(n: int, t_c: int) -> None:
    with pytest.raises(BelowThresholdError, match=r"max\(t, t_c \+ 2\)"):
        thresholds(n, t_c)


def test_too_few_survivors_are_refused() -> None:
    needed = thresholds(4, 1)
    check_survivors(needed, 3)
    with pytest.raises(BelowThresholdError) as caught:
        check_survivors(needed, 2)
    assert (caught.value.required, caught.value.got) == (3, 2)


def test_the_field_is_prime() -> None:
    # Miller-Rabin, 40 random bases: a composite passes with probability below 4^-40.
    odd, power = shamir.PRIME - 1, 0
    while odd % 2 == 0:
        odd, power = odd // 2, power + 1
    for _ in range(40):
        x = pow(2 + secrets.randbelow(shamir.PRIME - 3), odd, shamir.PRIME)
        assert x in (1, shamir.PRIME - 1) or any((x := x * x % shamir.PRIME) == shamir.PRIME - 1 for _ in range(power - 1))


def test_shares_lie_on_the_polynomial() -> None:
    # 1000 + 5 x + 7 x^2, and a coefficient that wraps.
    assert [shamir._evaluate([1000, 5, 7], x) for x in (0, 1, 2, 10)] == [1000, 1012, 1038, 1750]
    assert shamir._evaluate([3, shamir.PRIME - 1], 1) == 2
    assert shamir.combine({x: value.to_bytes(33) for x, value in ((1, 1012), (2, 1038), (10, 1750))}, 3) == (1000).to_bytes(32)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_extreme_secrets_survive(secret: bytes) -> None:
    shares = shamir.split(secret, 2, range(1, 4))
    assert all(len(share) == shamir.SHARE_SIZE for share in shares.values())
    assert shamir.combine({2: shares[2], 3: shares[3]}, 2) == secret


@pytest.mark.parametrize(
    ("secret", "threshold", "indices"),
    [
        (bytes(31), 2, [1, 2]),
        (bytes(33), 2, [1, 2]),
        (bytes(32), 0, [1]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), 2, [0, 1]),
        (bytes(32), 2, [1, 1]),
    ],
)
def test_split_checks_its_arguments(secret: bytes, threshold: int, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        shamir.split(secret, threshold, indices)


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), shamir.PRIME.to_bytes(33), b"\xff" * 33])
def test_shares_outside_the_field_are_refused(share: bytes) -> None:
    shares = shamir.split(bytes(32), 2, [1, 2])
    with pytest.raises(MalformedMessageError, match="share 2"):
        shamir.combine({1: shares[1], 2: share}, 2)


def test_share_at_zero_is_refused() -> None:
    with pytest.raises(MalformedMessageError, match="share 0"):
        shamir.combine({0: bytes(33), 1: bytes(33)}, 2)


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_the_mask_is_aes_256_in_counter_mode(dtype: str) -> None:
    # CTR written out: AES of the block counter, which starts at zero.
    seed = bytes(range(32))
    encrypt = Cipher(AES256(seed), ECB()).encryptor().update
    stream = b"".join(encrypt(block.to_bytes(16)) for block in range(5))
    expected = np.frombuffer(stream, dtype=dtype)[:9]
    vector = np.zeros(9, dtype=dtype)
    masks.apply_mask(vector, seed, 1)
    assert vector.tolist() == expected.tolist()
    masks.apply_mask(vector, seed, -1)
    assert not vector.any()
    masks.apply_mask(vector, seed, -1)
    assert (vector + expected == 0).all()


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_chunks_of_a_long_vector_take_their_part_of_the_stream(dtype: str) -> None:
    seed, length = secrets.token_bytes(32), 150_001
    whole, parts = np.zeros(length, dtype=dtype), np.zeros(length, dtype=dtype)
    masks.apply_mask(whole, seed, 1)
    for start in range(0, length, 40_000):
        masks.apply_mask(parts[start : start + 40_000], seed, 1, offset=start)
    assert np.array_equal(whole, parts)
    # A stream that repeats, or starts again at every block, has equal entries far too often.
    assert len(np.unique(whole)) > 0.999 * length


@pytest.mark.parametrize(
    ("vector", "seed", "offset"),
    [
        (np.zeros(4, dtype="<i4"), bytes(32), 0),
        (np.zeros(4, dtype=">u4"), bytes(32), 0),
        (np.zeros(4, dtype="<u1"), bytes(32), 0),
        (np.zeros((2, 2), dtype="<u4"), bytes(32), 0),
        (np.zeros(8, dtype="<u4")[::2], bytes(32), 0),
        (np.zeros(4, dtype="<u4"), bytes(16), 0),
        (np.zeros(4, dtype="<u4"), bytes(32), 3),
        (np.zeros(4, dtype="<u8"), bytes(32), 1),
        (np.zeros(4, dtype="<u4"), bytes(32), -4),
    ],
)
def test_masks_check_their_arguments(vector: masks.RingVector, seed: bytes, offset: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        masks.apply_mask(vector, seed, 1, offset=offset)


def test_pairwise_signs_are_opposite_and_the_lower_adds() -> None:
    assert masks.pairwise_sign(1, 2) == 1
    assert masks.pairwise_sign(2, 1) == -1
    with pytest.raises(ValueError, match="itself"):
        masks.pairwise_sign(2, 2)


def test_a_masked_update_is_the_formula() -> None:
    vector, self_seed, low, high = np.arange(10, dtype="<u4"), bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
    streams = {}
    for seed in (self_seed, low, high):
        streams[seed] = np.zeros(10, dtype="<u4")
        masks.apply_mask(streams[seed], seed, 1)
    masked = vector.copy()
    masks.mask_update(masked, self_seed, {1: low, 9: high}, me=4)
    assert np.array_equal(masked, vector + streams[self_seed] + streams[high] - streams[low])


def test_fixed_point_of_the_specification() -> None:
    encoding = FixedPoint(participants=20, clipping_norm=1.0)
    assert encoding.bound == (2**31 - 1) // 20
    assert encoding.scale == encoding.bound
    update = np.zeros(100)
    update[3] = -0.25
    total = encoding.encode(update)
    assert total.dtype == np.uint32
    assert encoding.decode(total)[3] == pytest.approx(-0.25, abs=1.5e-8)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("n", [1, 3, 7, 20, 99])
def test_no_sum_wraps_when_every_site_sits_on_the_bound(bits: int, n: int) -> None:
    for clipping_norm in (0.1, 0.3, 1.0, 3.7, 11.3, 1000.1):
        encoding = FixedPoint(n, clipping_norm, bits)
        for sign in (1, -1):
            # Far above the norm, so that clipping decides.
            entry = int(encoding.decode_integers(encoding.encode([sign * 1e6]))[0])
            assert abs(entry) <= encoding.bound
            assert n * abs(entry) <= 2 ** (bits - 1) - 1
            total = encoding.encode([sign * 1e6])
            for _ in range(n - 1):
                total = total + encoding.encode([sign * 1e6])
            assert encoding.decode(total)[0] == pytest.approx(sign * n * clipping_norm, rel=1e-4)


def test_integer_slots_are_clamped_to_the_bound() -> None:
    encoding = FixedPoint(3, 1.0, 64)
    assert encoding.decode_integers(encoding.encode_integers([740, -3, 0])).tolist() == [740, -3, 0]
    extreme = encoding.decode_integers(encoding.encode_integers([1e300, -np.inf]))
    assert 0.999 * encoding.bound < extreme[0] <= encoding.bound
    assert extreme[1] == -extreme[0]


@pytest.mark.parametrize("update", [[1.0, np.nan], [np.inf], [1e200, 1e200], [[1.0]]])
def test_nothing_that_is_not_a_finite_vector_is_encoded(update: list[float]) -> None:
    with pytest.raises(ValueError, match="finite norm"):
        FixedPoint(4, 1.0).encode(update)


def test_encoding_checks_its_parameters() -> None:
    for arguments in [(0, 1.0), (4, 0.0), (4, np.nan), (4, 1e30), (4, 1.0, 8)]:
        with pytest.raises(ValueError, match="expected"):
            FixedPoint(*arguments)
    for weight in (0.0, -1.0, 1.01, np.nan):
        with pytest.raises(ValueError, match="weight"):
            FixedPoint(4, 1.0).encode([1.0], weight=weight)
    with pytest.raises(ValueError, match="NaN"):
        FixedPoint(4, 1.0).encode_integers([np.nan])
    with pytest.raises(ValueError, match="32-bit"):
        FixedPoint(4, 1.0).decode_integers(np.zeros(3, dtype=np.uint64))


def test_example_weight_is_capped() -> None:
    assert [example_weight(n, 200) for n in (1, 100, 200, 5000)] == [0.005, 0.5, 1.0, 1.0]
    for examples, cap in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="at least"):
            example_weight(examples, cap)
